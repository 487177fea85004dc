#include "src/watchdog.h"

#include <asio/post.hpp>
#include <atomic>
#include <optional>
#include <string>

namespace app {
namespace {

// A loop that needs this part of the limit to answer, and the service manager half of it to hear
// of that, are still in time.
constexpr int questions_per_limit = 4;

}  // namespace

// One event loop, and whether it has answered the last question.
class Watchdog::Loop {
 public:
  explicit Loop(asio::any_io_executor executor) : executor_(std::move(executor)) {}

  bool answered() const { return answered_->load(); }
  void ask(Clock::Time now) {
    asked_at_ = now;
    answered_->store(false);
    // the loop may come round to it after we are gone
    asio::post(executor_, [answer = answered_] { answer->store(true); });
  }
  // Since when it owes an answer.
  Clock::Time asked_at() const { return asked_at_; }
  // True the first time.
  bool missed() { return !std::exchange(missed_, true); }
  bool is_back() { return std::exchange(missed_, false); }

 private:
  asio::any_io_executor executor_;
  std::shared_ptr<std::atomic<bool>> answered_ = std::make_shared<std::atomic<bool>>(true);
  Clock::Time asked_at_;
  bool missed_ = false;
};

Watchdog::Watchdog(Home& home, Clock::Duration limit, std::function<void()> alive,
                   std::vector<asio::any_io_executor> loops)
    : home_(home), limit_(limit), alive_(std::move(alive)) {
  for (asio::any_io_executor& loop : loops) {
    loops_.push_back(std::make_unique<Loop>(std::move(loop)));
  }
}

Watchdog::~Watchdog() = default;

void Watchdog::start() { spawn(home_.executor, gate_.enter_anyway(), watch()); }

asio::awaitable<void> Watchdog::watch() {
  while (!stopping_) {
    if (all_answer()) {
      alive_();
      for (const auto& loop : loops_) loop->ask(home_.clock.now());
    }
    pause_ = home_.clock.timer(limit_ / questions_per_limit);
    co_await pause_->wait();
  }
}

bool Watchdog::all_answer() {
  bool all = true;
  for (std::size_t i = 0; i < loops_.size(); ++i) {
    Loop& loop = *loops_[i];
    const std::string who = "worker " + std::to_string(i);
    if (loop.answered()) {
      if (loop.is_back()) home_.log.warning(who + " answers again");
      continue;
    }
    all = false;
    if (home_.clock.now() - loop.asked_at() >= limit_ / 2 && loop.missed()) {
      const auto time = std::chrono::duration<double>(home_.clock.now() - loop.asked_at());
      home_.log.error(who + " has not answered for " + std::to_string(time.count()) +
                      " s: the watchdog is not told any more that all is well");
    }
  }
  return all;
}

asio::awaitable<void> Watchdog::stop() {
  stopping_ = true;
  if (pause_) pause_->cancel();
  co_await gate_.drained();
}

}  // namespace app
