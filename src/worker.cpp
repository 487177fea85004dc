#include "src/worker.h"

#include <asio/redirect_error.hpp>
#include <asio/steady_timer.hpp>
#include <asio/use_awaitable.hpp>
#include <cassert>
#include <cerrno>
#include <optional>

namespace app {
namespace {

class AsioTimer final : public Timer {
 public:
  AsioTimer(const asio::any_io_executor& executor, Clock::Duration after)
      : timer_(executor, after) {}
  asio::awaitable<bool> wait() override {
    asio::error_code problem;
    co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, problem));
    co_return !problem;
  }
  void cancel() override { timer_.cancel(); }

 private:
  asio::steady_timer timer_;
};

class AsioClock final : public Clock {
 public:
  explicit AsioClock(asio::any_io_executor executor) : executor_(std::move(executor)) {}
  Time now() const override { return std::chrono::steady_clock::now(); }
  std::unique_ptr<Timer> timer(Duration after) override {
    return std::make_unique<AsioTimer>(executor_, after);
  }

 private:
  asio::any_io_executor executor_;
};

class NoFiles final : public Engine {
 public:
  std::string_view name() const override { return "none"; }
  SysTask<std::unique_ptr<EngineFile>> open(const std::string&, OpenFlags) override {
    co_return std::unexpected(Errno{ENOSYS});
  }
  SysTask<> remove(const std::string&) override { co_return std::unexpected(Errno{ENOSYS}); }
};

}  // namespace

Worker::Worker(Log& log)
    : clock_(std::make_unique<AsioClock>(context_.get_executor())),
      engine_(std::make_unique<NoFiles>()),
      home_{context_.get_executor(), *clock_, *engine_, buffers_, log} {}

Worker::~Worker() = default;

Result<int> Worker::run(Task<int> main) {
  std::optional<Result<int>> result;
  Gate gate;
  // the parameters live in the frame, unlike captures
  const auto root = [](Task<int> inner, std::optional<Result<int>>& out) -> asio::awaitable<void> {
    out.emplace(co_await std::move(inner));
  };
  spawn(home_.executor, gate.enter_anyway(), root(std::move(main), result));
  context_.run();  // ends when there is nothing left to do: never under a call of the kernel's
  assert(result && "the loop ends when main has ended, not before");
  return std::move(*result);
}

}  // namespace app
