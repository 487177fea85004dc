// steady_clock.h - the real time, over an executor of Asio.
#pragma once

#include <asio/any_io_executor.hpp>

#include "graph/base/clock.h"

class SteadyClock final : public Clock {
 public:
  explicit SteadyClock(asio::any_io_executor executor) : executor_(std::move(executor)) {}
  Time now() const override { return std::chrono::steady_clock::now(); }
  std::unique_ptr<Timer> timer(Duration after) override;

 private:
  asio::any_io_executor executor_;
};
