// clock.h - time as the graph and the server see it: real in the daemon, virtual under simulation.
#pragma once

#include <asio/awaitable.hpp>
#include <chrono>
#include <memory>

class Timer {
 public:
  virtual ~Timer() = default;
  // True when the time came, false when cancel() ended the wait. One wait at a time.
  virtual asio::awaitable<bool> wait() = 0;
  virtual void cancel() = 0;
};

class Clock {
 public:
  using Duration = std::chrono::nanoseconds;
  using Time = std::chrono::time_point<std::chrono::steady_clock, Duration>;

  virtual ~Clock() = default;
  virtual Time now() const = 0;
  // A timer that fires `after` from now.
  virtual std::unique_ptr<Timer> timer(Duration after) = 0;
};
