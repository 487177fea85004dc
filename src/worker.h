// worker.h - one thread's event loop, and what it lends to the graphs that live on it.
#pragma once

#include <asio/io_context.hpp>
#include <memory>

#include "graph/base/engines.h"
#include "graph/base/home.h"
#include "graph/base/steady_clock.h"
#include "graph/base/task.h"

namespace app {

class Worker {
 public:
  // Lifetime: `log` outlives the worker. Made and run on one thread.
  // Errors: not_supported when that engine can't be had here.
  static Result<std::unique_ptr<Worker>> create(Log& log, EngineKind engine);
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  Home& home() { return *home_; }
  // Runs the loop until `main` and whatever it started have ended, and returns what main says.
  Result<int> run(Task<int> main);

 private:
  Worker() = default;

  asio::io_context context_{1};  // one thread: no locks
  SteadyClock clock_{context_.get_executor()};
  BufferPool buffers_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Home> home_;
};

}  // namespace app
