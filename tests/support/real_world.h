// real_world.h - a real worker, for tests of what only a kernel does: an event loop, io_uring, a
// folder for files.
#pragma once

#include <gtest/gtest.h>

#include <asio/io_context.hpp>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "graph/base/home.h"
#include "graph/base/steady_clock.h"
#include "graph/base/uring_engine.h"
#include "tests/support/world.h"

namespace test {

// A folder on a real file system: under $TMPDIR, else beside the test binary. Gone in the end.
class TempDir {
 public:
  TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir();
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  bool is_tmpfs() const;

 private:
  std::filesystem::path folder_;
};

class RealWorld {
 public:
  RealWorld();
  // Why it can't be used, or "".
  const std::string& missing() const { return missing_; }

  // Runs `task` and everything that it starts to the end.
  template <class T>
  Result<T> run(Task<T> task) {
    std::optional<Result<T>> result;
    Gate gate;
    spawn(context.get_executor(), gate.enter_anyway(), keep(std::move(task), result));
    context.restart();
    context.run();
    if (result) return std::move(*result);
    ADD_FAILURE() << "the event loop has nothing left to do, and the task has not ended";
    std::abort();  // its frame refers to this one
  }

  asio::io_context context{1};

 private:
  template <class T>
  static asio::awaitable<void> keep(Task<T> task, std::optional<Result<T>>& out) {
    out.emplace(co_await std::move(task));
  }
  std::string missing_;
  std::unique_ptr<Engine> engine_;
  SteadyClock clock_{context.get_executor()};
  BufferPool buffers_;

 public:
  sim::MemoryLog log;
  Home home;

 private:
  Engine& make_engine();
};

}  // namespace test
