#include "graph/base/steady_clock.h"

#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>

namespace {

class SteadyTimer final : public Timer {
 public:
  SteadyTimer(const asio::any_io_executor& executor, Clock::Duration after)
      : timer_(executor, after) {}

  asio::awaitable<bool> wait() override {
    if (cancelled_) co_return false;
    asio::error_code error;
    co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, error));
    co_return !cancelled_ && !error;
  }
  void cancel() override {
    cancelled_ = timer_.expiry() > std::chrono::steady_clock::now();
    timer_.cancel();
  }

 private:
  asio::steady_timer timer_;
  bool cancelled_ = false;
};

}  // namespace

std::unique_ptr<Timer> SteadyClock::timer(Duration after) {
  return std::make_unique<SteadyTimer>(executor_, after);
}
