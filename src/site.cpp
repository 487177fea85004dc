#include "src/site.h"

#include <algorithm>
#include <asio/post.hpp>
#include <atomic>
#include <cassert>
#include <optional>
#include <utility>

namespace app {

// A client between its reply to GO and the worker of its export. The worker takes it; or the front
// does, when that does not happen in time.
class Site::Newcomer {
 public:
  struct Client {
    std::unique_ptr<Stream> stream;
    nbd::Session session;
    nbd::Ticket ticket;
  };
  Newcomer(Client client, Place& goal, Clock::Time until)
      : destination(goal), deadline(until), client_(std::move(client)) {}

  // The client, for whoever asks first.
  std::optional<Client> take() {
    if (taken_.exchange(true)) return std::nullopt;
    return std::move(client_);
  }
  bool is_taken() const { return taken_.load(); }

  Place& destination;
  const Clock::Time deadline;

 private:
  Client client_;
  std::atomic<bool> taken_ = false;
};

struct Site::Place {
  enum class Step : std::uint8_t { at_home, leaving, entering };
  explicit Place(Cell& inhabitant, std::size_t number) : cell(inhabitant), worker(number) {}
  // What somebody waits for who does not reach the cell.
  std::string obstacle() const {
    const std::string here = "worker " + std::to_string(worker);
    switch (step) {
      case Step::leaving:
        return "worker " + std::to_string(before) + " does not let its graph go to " + here;
      case Step::entering:
        return here + " does not take its graph over";
      case Step::at_home:
        break;
    }
    return here + " does not answer";
  }

  Cell& cell;
  Served served;            // as it said the last time
  std::size_t worker;       // its number; of the one that it goes to
  std::size_t before = 0;   // where it was until it moved
  std::size_t clients = 0;  // on their way to it, too
  Step step = Step::at_home;
  std::vector<std::shared_ptr<Newcomer>> waiting;  // for the end of the move
  Gate moving;                                     // a pass while it does
  Gate visitors;                                   // a pass for each; it does not move meanwhile
  bool closed = false;
};

namespace {

constexpr Clock::Duration timeout_max = std::chrono::hours(24 * 365);  // a sum has to fit, too

}  // namespace

Site::Site(Home& front, std::vector<Home*> workers, const Config& config, Drivers drivers)
    : front_(front),
      workers_(std::move(workers)),
      arrival_timeout_(std::min<Clock::Duration>(config.limits.handshake_timeout, timeout_max)),
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
  for (const auto& place : places_) {
    Cell& cell = place->cell;
    opening_ = place.get();
    Result<> opened = co_await run_on(cell.home().executor, cell.open());
    opening_ = nullptr;
    if (!opened) place->closed = true;
    if (opened) opened = co_await learn(*place);
    if (!opened) {
      (void)co_await close();  // the first failure is what people need to hear of
      co_return opened;
    }
  }
  publish();
  co_return ok;
}

// Configured names differ; those of snapshots may be what another cell has.
Task<> Site::learn(Place& place) {
  CO_TRY(place.served, co_await run_on(place.cell.home().executor, place.cell.served()));
  for (const auto& [name, offer] : place.served.offers) {
    const auto [there, is_free] = by_export_.emplace(name, &place);
    if (is_free) continue;
    const auto& here = place.served.snapshots;
    const auto found = here.find(name);
    const ExportConfig& origin =
        found != here.end() ? *found->second : *there->second->served.snapshots.find(name)->second;
    co_return std::unexpected(at_position(origin.position, export_name_taken(origin, name)));
  }
  co_return ok;
}

void Site::publish() {
  nbd::Offers offers;
  by_export_.clear();
  for (const auto& place : places_) {
    for (const auto& [name, offer] : place->served.offers) {
      offers.emplace(name, offer);
      by_export_.emplace(name, place.get());
    }
  }
  lobby_.publish(std::move(offers));
}

Task<> Site::republish(Cell& cell) {
  Place& place = place_of(cell);
  CO_TRY(place.served, co_await visit(cell, cell.served()));
  publish();
  co_return ok;
}

std::map<std::string, const ExportConfig*> Site::snapshot_exports() const {
  std::map<std::string, const ExportConfig*> all;
  for (const auto& place : places_) {
    all.insert(place->served.snapshots.begin(), place->served.snapshots.end());
  }
  return all;
}

// A cell without clients goes where there is least to do when its first one comes. Nobody else is
// there: all that its last client asked for had ended when the client's ticket was given back.
void Site::deliver(std::unique_ptr<Stream> stream, nbd::Session session, nbd::Ticket ticket) {
  const auto found = by_export_.find(session.offer->name);
  if (found == by_export_.end()) {
    front_.log.info("client " + stream->peer() + ": export '" + printable(session.offer->name) +
                    "' is gone");
    stream->close();
    return;
  }
  Place& there = *found->second;
  const bool nobody_there = there.clients == 0 && there.visitors.inside() == 0;
  if (nobody_there && there.step == Place::Step::at_home) {
    const auto emptiest = std::ranges::min_element(clients_);
    if (*emptiest < clients_[there.worker]) {
      there.before = std::exchange(there.worker, emptiest - clients_.begin());
      there.step = Place::Step::leaving;
    }
  }
  const bool begins_to_move = there.step == Place::Step::leaving && there.moving.inside() == 0;
  ++there.clients;
  ++clients_[there.worker];
  ticket.when_over([this, &there] {
    --there.clients;
    --clients_[there.worker];  // it moves only while it has none
  });
  stream->release();
  Newcomer::Client client{std::move(stream), std::move(session), std::move(ticket)};
  const auto newcomer =
      std::make_shared<Newcomer>(std::move(client), there, front_.clock.now() + arrival_timeout_);
  if (there.step == Place::Step::at_home) {
    bring(newcomer);
  } else {
    there.waiting.push_back(newcomer);
  }
  watch_arrival_of(newcomer);
  if (begins_to_move) spawn(front_.executor, there.moving.enter_anyway(), move(there));
}

void Site::bring(std::shared_ptr<Newcomer> newcomer) {
  Cell& cell = newcomer->destination.cell;
  asio::post(cell.home().executor, [&cell, newcomer = std::move(newcomer)] {
    std::optional<Newcomer::Client> client = newcomer->take();
    if (!client) return;
    const Result<> arrived = client->stream->assign(cell.home().executor);
    if (!arrived) {
      cell.home().log.warning(arrived.error().message);
      return;
    }
    cell.server().attach(std::move(client->stream), std::move(client->session),
                         std::move(client->ticket));
  });
}

asio::awaitable<void> Site::move(Place& place) {
  Home& home = *workers_[place.worker];
  front_.log.debug("worker " + std::to_string(place.worker) + " takes over a graph from worker " +
                   std::to_string(place.before));
  (void)co_await run_on(place.cell.home().executor, place.cell.leave_worker());
  place.step = Place::Step::entering;
  (void)co_await run_on(home.executor, place.cell.enter_worker(home));
  place.step = Place::Step::at_home;
  for (auto& newcomer : std::exchange(place.waiting, {})) bring(std::move(newcomer));
}

Site::Place& Site::place_of(const Cell& cell) const {
  return **std::ranges::find_if(places_, [&](const auto& item) { return &item->cell == &cell; });
}

Task<Gate::Pass> Site::enter(Cell& cell) {
  Place& place = place_of(cell);
  while (place.step != Place::Step::at_home) co_await place.moving.drained();
  Gate::Pass visitor = place.visitors.try_enter();
  if (!visitor) co_return failure(Errc::shutting_down, "the server is stopping");
  co_return std::move(visitor);
}

void Site::watch_arrival_of(std::shared_ptr<Newcomer> newcomer) {
  if (arrival_timeout_ <= Clock::Duration{}) return;
  while (!arriving_.empty() && arriving_.front()->is_taken()) arriving_.pop_front();
  arriving_.push_back(std::move(newcomer));
  if (watching_.inside() == 0) {
    spawn(front_.executor, watching_.enter_anyway(), watch_arrivals());
  }
}

// Who comes later has its deadline later.
asio::awaitable<void> Site::watch_arrivals() {
  bool goes_on = true;
  while (goes_on && !arriving_.empty()) {
    const std::shared_ptr<Newcomer> first = arriving_.front();
    const Clock::Duration rest = first->deadline - front_.clock.now();
    if (first->is_taken() || rest <= Clock::Duration{}) {
      arriving_.pop_front();
      give_up(*first);
      continue;
    }
    next_deadline_ = front_.clock.timer(rest);
    goes_on = co_await next_deadline_->wait();
  }
  next_deadline_.reset();
}

void Site::give_up(Newcomer& newcomer) {
  const std::optional<Newcomer::Client> client = newcomer.take();
  if (!client) return;
  const std::string peer = client->stream->peer();
  const std::string& name = client->session.offer->name;
  front_.log.write(LogLevel::warning,
                   "client " + peer + ": did not reach export '" + printable(name) + "' in time, " +
                       newcomer.destination.obstacle() + ": cut off",
                   {.connection = peer, .export_name = name});
  client->stream->close();
}

Task<> Site::close() {
  Result<> first = ok;
  co_await lobby_.stop();
  for (const auto& place : places_) place->visitors.close();
  for (const auto& place : places_) {
    if (!place->closed) spawn(front_.executor, closing_.enter_anyway(), close_cell(*place, first));
  }
  co_await closing_.drained();
  if (next_deadline_) next_deadline_->cancel();
  co_await watching_.drained();
  co_return first;
}

asio::awaitable<void> Site::close_cell(Place& place, Result<>& first) {
  co_await place.moving.drained();
  co_await place.visitors.drained();
  Result<> closed = co_await run_on(place.cell.home().executor, place.cell.close());
  place.closed = true;
  if (first) first = std::move(closed);
}

std::vector<std::string> Site::unopened() const {
  std::vector<std::string> names;
  if (opening_ == nullptr) return names;
  for (const ExportConfig* item : opening_->cell.part().exports) names.push_back(item->name);
  return names;
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
