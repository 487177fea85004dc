// worker.h - one thread's event loop, and what it lends to the graphs that live on it.
#pragma once

#include <asio/io_context.hpp>
#include <memory>

#include "graph/base/home.h"
#include "graph/base/task.h"

namespace app {

class Worker {
 public:
  // Lifetime: `log` outlives the worker. Built and run on one thread.
  explicit Worker(Log& log);
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  ~Worker();

  Home& home() { return home_; }
  // Runs the loop until `main` and whatever it started have ended, and returns what main says.
  Result<int> run(Task<int> main);

 private:
  asio::io_context context_{1};  // one thread: no locks
  std::unique_ptr<Clock> clock_;
  std::unique_ptr<Engine> engine_;
  BufferPool buffers_;
  Home home_;
};

}  // namespace app
