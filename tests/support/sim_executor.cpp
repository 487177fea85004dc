#include "tests/support/sim_executor.h"

#include <asio/async_result.hpp>
#include <asio/use_awaitable.hpp>

#include "graph/base/wait_queue.h"

namespace sim {
namespace {

class SimTimer final : public Timer {
 public:
  SimTimer(Scheduler& scheduler, Clock::Duration after) : scheduler_(scheduler) {
    id_ = scheduler_.at(scheduler_.now() + after, [this] {
      id_ = 0;
      fired_ = true;
      changed_.notify_all();
    });
  }
  ~SimTimer() override { scheduler_.cancel(id_); }
  asio::awaitable<bool> wait() override {
    while (!fired_ && !cancelled_) co_await changed_.wait();
    co_return fired_;
  }
  void cancel() override {
    scheduler_.cancel(id_);
    if (!fired_) cancelled_ = true;
    changed_.notify_all();
  }

 private:
  Scheduler& scheduler_;
  std::uint64_t id_ = 0;
  bool fired_ = false;
  bool cancelled_ = false;
  WaitQueue changed_;
};

}  // namespace

asio::execution_context& SimExecutor::context() {
  static asio::execution_context none;
  return none;
}

Scheduler::~Scheduler() = default;

asio::any_io_executor Scheduler::executor() { return SimExecutor(*this, true); }

bool Scheduler::step() {
  if (ready_.empty()) {
    if (timers_.empty()) return false;
    auto first = timers_.begin();
    now_ = std::max(now_, first->first);
    const std::function<void()> then = std::move(first->second.then);
    timers_.erase(first);
    ++depth_;
    then();
    --depth_;
    return true;
  }
  std::swap(ready_[choose(ready_.size())], ready_.back());
  const std::unique_ptr<Work> work = std::move(ready_.back());
  ready_.pop_back();
  ++steps_;
  ++depth_;
  work->run();
  --depth_;
  return true;
}

void Scheduler::run() {
  while (step()) {
  }
}

void Scheduler::settle() {
  while (!ready_.empty()) step();
}

void Scheduler::pass(Clock::Duration time) {
  const Clock::Time end = now_ + time;
  bool over = false;
  at(end, [&over] { over = true; });
  run_until([&over] { return over; });
  settle();
}

bool Scheduler::run_until(const std::function<bool()>& done) {
  while (!done()) {
    if (!step()) return done();
  }
  return true;
}

std::uint64_t Scheduler::at(Clock::Time when, std::function<void()> then) {
  timers_.emplace(when, Due{next_timer_, std::move(then)});
  return next_timer_++;
}

void Scheduler::cancel(std::uint64_t timer) {
  if (timer == 0) return;
  std::erase_if(timers_, [&](const auto& entry) { return entry.second.id == timer; });
}

std::uint64_t Scheduler::choose(std::uint64_t n) { return n <= 1 ? 0 : random_() % n; }

std::unique_ptr<Timer> SimClock::timer(Duration after) {
  return std::make_unique<SimTimer>(scheduler_, after);
}

}  // namespace sim
