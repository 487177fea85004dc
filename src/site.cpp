#include "src/site.h"

#include <algorithm>
#include <asio/post.hpp>
#include <cassert>
#include <map>

namespace app {

struct Site::Place {
  explicit Place(Cell& inhabitant, std::size_t number) : cell(inhabitant), worker(number) {}
  Cell& cell;
  std::size_t worker;       // its number
  std::size_t clients = 0;  // on their way to it, too
  bool closed = false;
};

namespace {

// On the worker of the cell.
void attach(Cell& cell, std::unique_ptr<Stream> stream, nbd::Session session, nbd::Ticket ticket) {
  const Result<> arrived = stream->assign(cell.home().executor);
  if (arrived) {
    cell.server().attach(std::move(stream), std::move(session), std::move(ticket));
  } else {
    cell.home().log.info(arrived.error().message);
  }
}

}  // namespace

Site::Site(Home& front, std::vector<Home*> workers, const Config& config, Drivers drivers)
    : front_(front),
      workers_(std::move(workers)),
      clients_(workers_.size()),
      lobby_(front, config.limits.lobby(),
             [this](std::unique_ptr<Stream> stream, nbd::Session session, nbd::Ticket ticket) {
               deliver(std::move(stream), std::move(session), std::move(ticket));
             }) {
  assert(!workers_.empty());
  for (Part& part : partition(config, drivers, workers_.size())) {
    const std::size_t number = cells_.size() % workers_.size();
    cells_.push_back(std::make_unique<Cell>(*workers_[number], std::move(part),
                                            config.limits.server(), drivers));
    places_.push_back(std::make_unique<Place>(*cells_.back(), number));
  }
}

Site::~Site() = default;

Task<> Site::open() {
  nbd::Offers offers;
  for (const auto& place : places_) {
    Cell& cell = place->cell;
    Result<> opened = co_await run_on(cell.home().executor, cell.open());
    if (!opened) {
      place->closed = true;
      (void)co_await close();  // the first failure is what people need to hear of
      co_return opened;
    }
    offers.merge(cell.server().offers());
  }
  lobby_.publish(std::move(offers));
  co_return ok;
}

void Site::deliver(std::unique_ptr<Stream> stream, nbd::Session session, nbd::Ticket ticket) {
  const auto place = std::ranges::find_if(places_, [&](const auto& candidate) {
    const auto& exports = candidate->cell.part().exports;
    return std::ranges::find(exports, session.offer->name, &ExportConfig::name) != exports.end();
  });
  Place& there = **place;
  ++there.clients;
  ++clients_[there.worker];
  ticket.when_over([this, &there] {
    --there.clients;
    --clients_[there.worker];
  });
  stream->release();
  asio::post(there.cell.home().executor,
             [&cell = there.cell, stream = std::move(stream), session = std::move(session),
              ticket = std::move(ticket)]() mutable {
               attach(cell, std::move(stream), std::move(session), std::move(ticket));
             });
}

Task<> Site::close() {
  Result<> first = ok;
  co_await lobby_.stop();
  for (const auto& place : places_) {
    if (!place->closed) spawn(front_.executor, closing_.enter_anyway(), close_cell(*place, first));
  }
  co_await closing_.drained();
  co_return first;
}

asio::awaitable<void> Site::close_cell(Place& place, Result<>& first) {
  Result<> closed = co_await run_on(place.cell.home().executor, place.cell.close());
  place.closed = true;
  if (first) first = std::move(closed);
}

std::vector<std::string> Site::unfinished() const {
  std::vector<std::string> names;
  for (const auto& place : places_) {
    if (place->closed) continue;
    for (const ExportConfig* item : place->cell.part().exports) names.push_back(item->name);
  }
  return names;
}

}  // namespace app
