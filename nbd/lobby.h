// lobby.h - where clients are until they have chosen an export: counts them, haggles with them, and
// hands those who have agreed on to the server of their export. It lives on one thread and touches
// no export. Spec: proto.md, "Newstyle negotiation", "Termination of the session during option
// haggling".
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "graph/base/gate.h"
#include "graph/base/home.h"
#include "graph/base/stream.h"
#include "nbd/budget.h"
#include "nbd/session.h"
#include "nbd/ticket.h"
#include "nbd/turned_away.h"

namespace nbd {

// May a client ask for the names of all exports?
enum class Listing : std::uint8_t { allowed, forbidden };

struct LobbyOptions {
  // From accept to the reply to GO; 0: none (statement 17).
  Clock::Duration handshake_timeout = std::chrono::seconds(10);
  std::size_t clients_max = 100;  // those who have agreed on an export included
  // The same for one origin. Without it: origin_max_default for those from elsewhere, no limit for
  // those of this machine.
  std::optional<std::size_t> origin_max;
  // Clients that have not agreed yet: the oldest gives way to a new one (statement 18).
  std::size_t guests_max = 32;
  std::size_t options_max = 256;  // in one session, and two more for each export (statement 25)
  std::size_t option_length_max = 1 << 20;  // bytes; longer: the peer is cut off (statement 24)
  // Bytes of all options together that are longer than option_piece and being read; one that does
  // not fit is refused.
  std::size_t long_options_max = 4 << 20;
  Listing listing = Listing::allowed;
};
inline constexpr std::size_t origin_max_default = 16;
inline constexpr std::size_t option_piece = 64 << 10;  // bytes that each guest may have in memory

class Lobby {
 public:
  // What becomes of a client that has agreed. Nobody waits on the stream.
  using Deliver = std::function<void(std::unique_ptr<Stream>, Session, Ticket)>;

  // Lifetime: `home` outlives the lobby.
  Lobby(Home& home, LobbyOptions options, Deliver deliver);
  // Requires: stop() has returned, or nobody was ever received.
  ~Lobby();
  Lobby(const Lobby&) = delete;
  Lobby& operator=(const Lobby&) = delete;

  // What there is to choose from now on.
  void publish(Offers offers);
  // As it is now; a LIST goes on with what it began with (statement 46).
  const std::shared_ptr<const Offers>& offers() const { return offers_; }

  // Speaks with one client until it has agreed or left, in a coroutine of its own. A client too
  // many is turned away.
  void receive(std::unique_ptr<Stream> stream);
  std::size_t guests() const { return guests_.size(); }
  // Guests, and those who were handed on and have not left yet.
  std::size_t clients() const { return places_->taken; }
  // Returns when there are none.
  asio::awaitable<void> empty();

  // Statement 35: no new clients; options get ERR_SHUTDOWN for a short while, then all are sent
  // away.
  asio::awaitable<void> stop();
  bool stopping() const { return stopping_; }
  const LobbyOptions& options() const { return options_; }
  Budget& long_options() { return long_options_; }

 private:
  struct Guest;
  asio::awaitable<void> attend(std::shared_ptr<Guest> guest);
  asio::awaitable<void> watch(std::shared_ptr<Guest> guest);
  using Why = TurnedAway::Why;
  void send_away(Guest& guest, Why why, std::string_view text);
  bool make_room(const Stream& stream);

  Home& home_;
  const LobbyOptions options_;
  const Deliver deliver_;
  std::shared_ptr<const Offers> offers_ = std::make_shared<Offers>();
  std::shared_ptr<Places> places_ = std::make_shared<Places>();
  std::vector<std::shared_ptr<Guest>> guests_;  // in the order of their arrival
  Gate gate_;                                   // a pass for each guest
  Budget long_options_;
  TurnedAway turned_away_;
  bool stopping_ = false;
};

}  // namespace nbd
