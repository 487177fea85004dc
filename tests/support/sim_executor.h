// sim_executor.h - one thread, no clock, no system: picks the next ready coroutine from a seed, and
// jumps to the next timer when none is ready. The same seed gives the same run.
#pragma once

#include <asio/any_io_executor.hpp>
#include <asio/execution.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "graph/base/clock.h"
#include "graph/base/task.h"

namespace sim {

class Scheduler {
 public:
  explicit Scheduler(std::uint64_t seed) : random_(seed) {}
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;
  ~Scheduler();

  asio::any_io_executor executor();
  // Runs until nothing is ready and no timer is pending.
  void run();
  // Runs what is ready, and what becomes ready by that; no timer fires.
  void settle();
  // Lets `time` pass, with everything that happens meanwhile.
  void pass(Clock::Duration time);
  // Runs until `done` or until nothing is left to do; true when done.
  bool run_until(const std::function<bool()>& done);

  Clock::Time now() const { return now_; }
  // Calls `then` at `when`, virtual time.
  std::uint64_t at(Clock::Time when, std::function<void()> then);
  void cancel(std::uint64_t timer);
  // One of [0, n). The only source of chance in a simulation.
  std::uint64_t choose(std::uint64_t n);
  bool one_in(std::uint64_t n) { return choose(n) == 0; }
  // Off: work that could start inside of its starter is queued like the rest.
  void set_inline_starts(bool on) { inline_starts_ = on; }
  std::uint64_t steps() const { return steps_; }

 private:
  friend class SimExecutor;
  struct Work {
    virtual ~Work() = default;
    virtual void run() = 0;
  };
  bool step();

  std::mt19937_64 random_;
  std::vector<std::unique_ptr<Work>> ready_;
  struct Due {
    std::uint64_t id;
    std::function<void()> then;
  };
  std::multimap<Clock::Time, Due> timers_;
  Clock::Time now_{};
  std::uint64_t next_timer_ = 1;
  std::uint64_t steps_ = 0;
  bool inline_starts_ = true;
  int depth_ = 0;
};

class SimClock final : public Clock {
 public:
  explicit SimClock(Scheduler& scheduler) : scheduler_(scheduler) {}
  Time now() const override { return scheduler_.now(); }
  std::unique_ptr<Timer> timer(Duration after) override;

 private:
  Scheduler& scheduler_;
};

// Runs `task` to its end and returns what it says.
// Requires: it ends; a simulation that has nothing left to do before that fails the test.
template <class T>
Result<T> run(Scheduler& scheduler, Task<T> task);

}  // namespace sim

#include "tests/support/sim_executor_impl.h"
