// ticket.h - a client's place among those that are served. It travels with the client, and gives
// the place back when the client is gone, on whatever worker that happens.
#pragma once

#include <asio/any_io_executor.hpp>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "graph/base/wait_queue.h"

namespace nbd {

// How many places are taken. Touched by the thread of the lobby alone.
struct Places {
  std::size_t taken = 0;
  std::size_t attached = 0;  // of them, by clients that have agreed on an export
  std::map<std::string, std::size_t, std::less<>> by_origin;  // Stream::origin(), none that is 0
  WaitQueue given_back;  // wakes who waits for places to be given back

  std::size_t taken_by(const std::string& origin) const {
    const auto found = by_origin.find(origin);
    return found == by_origin.end() ? 0 : found->second;
  }
};

class Ticket {
 public:
  Ticket() = default;
  // Takes a place; `home` is the executor of those who touch `places`.
  Ticket(std::shared_ptr<Places> places, std::string origin, asio::any_io_executor home);
  Ticket(Ticket&&) = default;
  Ticket& operator=(Ticket&&) = delete;
  ~Ticket();

  // The client has agreed on an export. Requires: the thread of the lobby.
  void attach();
  // Gives the place back at once. Requires: the thread of the lobby; not attached.
  void give_up();
  // Called, where the places are touched, when this place was given back.
  void when_over(std::function<void()> then) { then_ = std::move(then); }

 private:
  std::shared_ptr<Places> places_;  // null when moved from
  std::string origin_;
  bool attached_ = false;
  asio::any_io_executor home_;
  std::function<void()> then_;
};

}  // namespace nbd
