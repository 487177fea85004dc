#include "src/worker.h"

#include <pthread.h>

#include <asio/steady_timer.hpp>
#include <cassert>
#include <system_error>

namespace app {
namespace {

// The first timer or socket of an event loop makes the descriptors that it waits by, and throws
// when there are none. A client's arrival is no time to find that out.
Result<> make_descriptors(asio::io_context& context) {
  try {
    const asio::steady_timer first(context);
  } catch (const std::system_error& problem) {
    return std::unexpected(error_from_errno(problem.code().value(), "an event loop"));
  }
  return ok;
}

}  // namespace

Result<std::unique_ptr<Worker>> Worker::create(Log& log, EngineKind engine, MemoryAccount* memory) {
  std::unique_ptr<Worker> worker(new Worker());
  if (Result<> made = make_descriptors(worker->context_); !made) {
    return std::unexpected(std::move(made).error());
  }
  if (memory != nullptr) worker->memory_.emplace(*memory, worker->context_.get_executor());
  TRY(worker->engine_, make_engine(engine, worker->context_));
  worker->home_ = std::make_unique<Home>(worker->context_.get_executor(), worker->clock_,
                                         *worker->engine_, worker->buffers_, log,
                                         *worker->helpers_,
                                         memory == nullptr ? nullptr : &*worker->memory_);
  return worker;
}

Worker::~Worker() { assert(!thread_.joinable()); }

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

void Worker::start(const std::string& name) {
  running_.emplace(context_.get_executor());
  thread_ = std::thread([this] { context_.run(); });
  ::pthread_setname_np(thread_.native_handle(), name.c_str());
}

void Worker::stop() {
  if (!thread_.joinable()) return;
  running_.reset();
  thread_.join();
}

}  // namespace app
