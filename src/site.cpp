#include "src/site.h"

#include <algorithm>
#include <asio/post.hpp>
#include <cassert>
#include <utility>

namespace app {

struct Site::Newcomer {
  std::unique_ptr<Stream> stream;
  nbd::Session session;
  nbd::Ticket ticket;
};

struct Site::Place {
  explicit Place(Cell& inhabitant, std::size_t number) : cell(inhabitant), worker(number) {}
  Cell& cell;
  std::size_t worker;       // its number
  std::size_t clients = 0;  // on their way to it, too
  bool moving = false;
  WaitQueue moved;
  std::vector<Newcomer> waiting;  // for the end of the move
  Gate visitors;                  // a pass for each; it does not move meanwhile
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
  ticket.when_over([this, &there] {
    --there.clients;
    --clients_[there.worker];
  });
  stream->release();
  Newcomer newcomer{std::move(stream), std::move(session), std::move(ticket)};
  if (there.moving) {
    there.waiting.push_back(std::move(newcomer));
    return;
  }
  const auto emptiest = std::ranges::min_element(clients_);
  const bool settled = there.clients > 1 || there.visitors.inside() > 0;
  if (settled || *emptiest == clients_[there.worker]) {
    bring(there, std::move(newcomer));
    return;
  }
  there.moving = true;
  there.waiting.push_back(std::move(newcomer));
  spawn(front_.executor, moving_.enter_anyway(),
        move(there, static_cast<std::size_t>(emptiest - clients_.begin())));
}

void Site::bring(Place& place, Newcomer newcomer) {
  ++clients_[place.worker];
  asio::post(place.cell.home().executor,
             [&cell = place.cell, newcomer = std::move(newcomer)]() mutable {
               attach(cell, std::move(newcomer.stream), std::move(newcomer.session),
                      std::move(newcomer.ticket));
             });
}

// A cell goes where there is least to do, when its first client comes. Nobody else is there: all
// that its last client asked for had ended when the client's ticket was given back.
asio::awaitable<void> Site::move(Place& place, std::size_t worker) {
  front_.log.debug("worker " + std::to_string(worker) + " takes over a graph from worker " +
                   std::to_string(place.worker));
  (void)co_await run_on(place.cell.home().executor, place.cell.leave_worker());
  Home& home = *workers_[worker];
  (void)co_await run_on(home.executor, place.cell.enter_worker(home));
  place.worker = worker;
  place.moving = false;
  std::vector<Newcomer> waiting = std::exchange(place.waiting, {});
  for (Newcomer& newcomer : waiting) bring(place, std::move(newcomer));
  place.moved.notify_all();
}

Task<Gate::Pass> Site::enter(Cell& cell) {
  Place& place =
      **std::ranges::find_if(places_, [&](const auto& item) { return &item->cell == &cell; });
  while (place.moving) co_await place.moved.wait();
  Gate::Pass visitor = place.visitors.try_enter();
  if (!visitor) co_return failure(Errc::shutting_down, "the server is stopping");
  co_return std::move(visitor);
}

Task<> Site::close() {
  Result<> first = ok;
  co_await lobby_.stop();
  co_await moving_.drained();
  for (const auto& place : places_) place->visitors.close();
  for (const auto& place : places_) co_await place->visitors.drained();
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

bool Site::closed() const {
  return std::ranges::all_of(places_, [](const auto& place) { return place->closed; });
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
