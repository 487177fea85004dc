#include "src/worker.h"

#include <cassert>
#include <optional>

namespace app {

Result<std::unique_ptr<Worker>> Worker::create(Log& log, EngineKind engine) {
  std::unique_ptr<Worker> worker(new Worker());
  TRY(worker->engine_, make_engine(engine, worker->context_));
  worker->home_ = std::make_unique<Home>(worker->context_.get_executor(), worker->clock_,
                                         *worker->engine_, worker->buffers_, log);
  return worker;
}

Result<int> Worker::run(Task<int> main) {
  std::optional<Result<int>> result;
  Gate gate;
  // the parameters live in the frame, unlike captures
  const auto root = [](Task<int> inner, std::optional<Result<int>>& out) -> asio::awaitable<void> {
    out.emplace(co_await std::move(inner));
  };
  spawn(home_->executor, gate.enter_anyway(), root(std::move(main), result));
  context_.run();  // ends when there is nothing left to do: never under a call of the kernel's
  assert(result && "main ends: whatever it waits for is work of this loop");
  return std::move(*result);
}

}  // namespace app
