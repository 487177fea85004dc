// server.h - the control clients of the daemon, on its front.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "src/control/session.h"

namespace app::control {

inline constexpr std::size_t sessions_max = 16;  // more clients are turned away

class Server {
 public:
  // Lifetime: `home` and `host` outlive the server.
  Server(Home& home, Host& host) : home_(home), host_(host) {}
  // Requires: stop() has returned, or nobody was ever received.
  ~Server() = default;
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Speaks with one client until it leaves, in a coroutine of its own.
  void receive(std::unique_ptr<Stream> stream);
  // To all clients that have agreed on what they speak.
  void emit(std::string_view event, Json data);
  // Nobody is received any more, and all clients are left. Waits for what they have under way.
  asio::awaitable<void> stop();
  std::size_t sessions() const { return sessions_.size(); }

 private:
  asio::awaitable<void> attend(std::shared_ptr<Session> session);

  Home& home_;
  Host& host_;
  Turns turns_;
  std::vector<std::shared_ptr<Session>> sessions_;
  Gate gate_;  // a pass for each session
};

}  // namespace app::control
