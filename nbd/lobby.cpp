#include "nbd/lobby.h"

#include <algorithm>
#include <cassert>
#include <limits>
#include <string>
#include <utility>

#include "nbd/negotiate_server.h"

namespace nbd {

struct Lobby::Guest {
  std::unique_ptr<Stream> stream;
  Ticket ticket;
  std::unique_ptr<Timer> deadline;
  Gate helpers;  // a pass for who watches the deadline
  enum class State : std::uint8_t { haggling, sent_away, agreed } state = State::haggling;

  Guest(std::unique_ptr<Stream> peer, Ticket place)
      : stream(std::move(peer)), ticket(std::move(place)) {}
  bool haggles() const { return state == State::haggling; }
};

Lobby::Lobby(Home& home, LobbyOptions options, Deliver deliver)
    : home_(home),
      options_(options),
      deliver_(std::move(deliver)),
      long_options_(BudgetLimits(options.guests_max, options.long_options_max), nullptr),
      turned_away_(home) {}

Lobby::~Lobby() { assert(guests_.empty()); }

void Lobby::publish(Offers offers) { offers_ = std::make_shared<const Offers>(std::move(offers)); }

// Idle clients that never say what they want keep nobody out; those who were let in are not driven
// out.
bool Lobby::make_room(const Stream& stream) {
  const std::size_t fallback =
      stream.is_local() ? std::numeric_limits<std::size_t>::max() : origin_max_default;
  const std::size_t taken = places_->taken_by(stream.origin());
  if (taken >= options_.origin_max.value_or(fallback)) return false;
  const auto haggles = [](const auto& guest) { return guest->haggles(); };
  const auto open = static_cast<std::size_t>(std::ranges::count_if(guests_, haggles));
  if (places_->attached + open < options_.clients_max && open < options_.guests_max) return true;
  const auto oldest = std::ranges::find_if(guests_, haggles);
  if (oldest == guests_.end()) return false;
  send_away(**oldest, Why::gives_way, "did not finish the handshake, gives way to others");
  return true;
}

void Lobby::receive(std::unique_ptr<Stream> stream) {
  if (stopping_ || !make_room(*stream)) {
    turned_away_.note(
        stopping_ ? Why::stopping : Why::too_many, stream->peer(),
        stopping_ ? "turned away, the server is stopping"
                  : "turned away, " + std::to_string(places_->taken_by(stream->origin())) +
                        " of its " + std::to_string(places_->taken) + " connections are open");
    stream->close();
    return;
  }
  Ticket ticket(places_, stream->origin(), home_.executor);
  guests_.push_back(std::make_shared<Guest>(std::move(stream), std::move(ticket)));
  spawn(home_.executor, gate_.enter_anyway(), attend(guests_.back()));
}

asio::awaitable<void> Lobby::attend(std::shared_ptr<Guest> guest) {
  if (options_.handshake_timeout > Clock::Duration{}) {
    guest->deadline = home_.clock.timer(options_.handshake_timeout);
    spawn(home_.executor, guest->helpers.enter_anyway(), watch(guest));
  }
  auto session = co_await negotiate(*guest->stream, *this);
  const bool was_haggling = guest->haggles();
  if (session && was_haggling) {  // from here on it is not sent away any more: it was told so
    guest->state = Guest::State::agreed;
    guest->ticket.attach();
  }
  if (guest->deadline) guest->deadline->cancel();
  co_await guest->helpers.drained();
  std::erase(guests_, guest);
  if (guest->state == Guest::State::agreed) {
    deliver_(std::move(guest->stream), *std::move(session), std::move(guest->ticket));
  } else if (was_haggling) {
    const std::string peer = guest->stream->peer();
    const std::string& text = session.error().message;
    if (session.error().code == Errc::connection_lost) {
      home_.log.write(LogLevel::debug, "client " + peer + ": " + text, {.connection = peer});
    } else {
      turned_away_.note(Why::misbehaved, peer, text);
    }
    guest->stream->close();
  }
}

// Ends the haggling when the deadline comes before it is cancelled.
asio::awaitable<void> Lobby::watch(std::shared_ptr<Guest> guest) {
  const bool came = co_await guest->deadline->wait();
  if (came && guest->haggles()) {
    send_away(*guest, Why::too_slow, "did not finish the handshake in time");
  }
}

void Lobby::send_away(Guest& guest, Why why, std::string_view text) {
  turned_away_.note(why, guest.stream->peer(), text);
  guest.state = Guest::State::sent_away;
  guest.ticket.give_up();
  guest.stream->close();
}

asio::awaitable<void> Lobby::empty() {
  while (places_->taken > 0) co_await places_->given_back.wait();
}

asio::awaitable<void> Lobby::stop() {
  stopping_ = true;
  if (!guests_.empty()) {
    const std::unique_ptr<Timer> short_time = home_.clock.timer(stop_grace);
    co_await short_time->wait();
  }
  for (const auto& guest : guests_) {
    if (guest->haggles()) send_away(*guest, Why::stopping, "the server is stopping");
  }
  co_await gate_.drained();
  co_await turned_away_.stop();
}

}  // namespace nbd
