// watchdog.h - tells the service manager that the daemon is alive, as long as the event loop of
// each worker answers. A loop that hangs stops that, and then the service manager acts.
#pragma once

#include <asio/any_io_executor.hpp>
#include <functional>
#include <memory>
#include <vector>

#include "graph/base/gate.h"
#include "graph/base/home.h"

namespace app {

class Watchdog {
 public:
  // `alive` is called, on the thread of `home`, at least twice per `limit` while all `loops`
  // answer. Lifetime: `home` outlives the watchdog, and whatever the loops belong to its stop().
  Watchdog(Home& home, Clock::Duration limit, std::function<void()> alive,
           std::vector<asio::any_io_executor> loops);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  void start();
  // Does not wait for loops that hang.
  asio::awaitable<void> stop();

 private:
  class Loop;
  asio::awaitable<void> watch();
  bool all_answer();

  Home& home_;
  const Clock::Duration limit_;
  const std::function<void()> alive_;
  std::vector<std::unique_ptr<Loop>> loops_;
  std::unique_ptr<Timer> pause_;
  Gate gate_;
  bool stopping_ = false;
};

}  // namespace app
