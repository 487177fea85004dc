// sim_executor_impl.h - the templates of sim_executor.h: the executor that Asio sees.
#pragma once

#include <gtest/gtest.h>

#include <asio/co_spawn.hpp>
#include <optional>
#include <utility>

namespace sim {

// A handle on the scheduler that satisfies Asio's executor requirements. `blocking` says whether
// work may start inside of execute(): dispatch asks for `possibly`, post for `never`.
class SimExecutor {
 public:
  SimExecutor(Scheduler& scheduler, bool may_block)
      : scheduler_(&scheduler), may_block_(may_block) {}

  bool operator==(const SimExecutor& other) const noexcept {
    return scheduler_ == other.scheduler_ && may_block_ == other.may_block_;
  }

  template <class Function>
  void execute(Function&& function) const {
    using Held = std::decay_t<Function>;
    // a bounded depth: coroutines that start one another would use up the stack
    constexpr int depth_max = 16;
    if (may_block_ && scheduler_->inline_starts_ && scheduler_->depth_ > 0 &&
        scheduler_->depth_ < depth_max && scheduler_->one_in(2)) {
      ++scheduler_->depth_;
      Held held(std::forward<Function>(function));
      held();
      --scheduler_->depth_;
      return;
    }
    struct Item final : Scheduler::Work {
      explicit Item(Function&& f) : held(std::forward<Function>(f)) {}
      void run() override {
        Held moved(std::move(held));
        moved();
      }
      Held held;
    };
    scheduler_->ready_.push_back(std::make_unique<Item>(std::forward<Function>(function)));
  }

  asio::execution_context& query(asio::execution::context_t) const noexcept { return context(); }
  static constexpr asio::execution::mapping_t query(asio::execution::mapping_t) noexcept {
    return asio::execution::mapping.thread;
  }
  asio::execution::blocking_t query(asio::execution::blocking_t) const noexcept {
    if (may_block_) return asio::execution::blocking.possibly;
    return asio::execution::blocking.never;
  }
  SimExecutor require(asio::execution::blocking_t::possibly_t) const { return {*scheduler_, true}; }
  SimExecutor require(asio::execution::blocking_t::never_t) const { return {*scheduler_, false}; }

 private:
  // Asio wants one to exist; nothing of ours lives in it.
  static asio::execution_context& context();
  Scheduler* scheduler_;
  bool may_block_;
};

template <class T>
Result<T> run(Scheduler& scheduler, Task<T> task) {
  std::optional<Result<T>> result;
  Gate gate;
  spawn(scheduler.executor(), gate.enter_anyway(),
        [](Task<T> inner, std::optional<Result<T>>& out) -> asio::awaitable<void> {
          out.emplace(co_await std::move(inner));
        }(std::move(task), result));
  scheduler.run_until([&] { return result.has_value() && gate.inside() == 0; });
  if (!result) {
    ADD_FAILURE() << "the simulation has nothing left to do, and the task has not ended";
    std::abort();  // its frame refers to this one
  }
  return std::move(*result);
}

}  // namespace sim
