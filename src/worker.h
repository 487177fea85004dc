// worker.h - one thread's event loop, and what it lends to the graphs that live on it.
#pragma once

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "graph/base/engines.h"
#include "graph/base/home.h"
#include "graph/base/steady_clock.h"
#include "graph/base/task.h"

namespace app {

class Worker {
 public:
  // Without `memory`, what its connections have in flight counts for each of them only.
  // Lifetime: `log` and `memory` outlive the worker.
  // Errors: not_supported when that engine can't be had here.
  static Result<std::unique_ptr<Worker>> create(Log& log, EngineKind engine,
                                                MemoryAccount* memory = nullptr);
  // Requires: it does not run.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  Home& home() { return *home_; }
  // Runs the loop on this thread until `main` and whatever it started have ended, and returns what
  // main says.
  Result<int> run(Task<int> main);

  // Runs the loop on a thread of its own, called `name`, until stop(): that waits for everything
  // that was started.
  void start(const std::string& name);
  void stop();

 private:
  Worker() = default;

  asio::io_context context_{1};  // one thread runs it
  SteadyClock clock_{context_.get_executor()};
  BufferPool buffers_;
  std::optional<MemoryBranch> memory_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Helpers> helpers_ = make_helpers();
  std::unique_ptr<Home> home_;
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>> running_;
  std::thread thread_;
};

}  // namespace app
