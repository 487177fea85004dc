// real_world.h - a real worker, for tests of what only a kernel does: an event loop, an engine, a
// folder for files. What holds on a real file has to hold with each engine.
#pragma once

#include <gtest/gtest.h>

#include <asio/io_context.hpp>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "graph/base/engines.h"
#include "graph/base/home.h"
#include "graph/base/steady_clock.h"
#include "tests/support/world.h"

namespace test {

// A folder on a real file system: under $TMPDIR, else beside the test binary. Gone in the end.
class TempDir {
 public:
  TempDir();
  // In another place: a Unix socket's path has to be short.
  explicit TempDir(const std::filesystem::path& parent);
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir();
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  const std::filesystem::path& folder() const { return folder_; }
  bool is_tmpfs() const;

 private:
  std::filesystem::path folder_;
};

// The values of a test that is made with each engine, and what such a case is called.
inline const auto each_engine = testing::Values(EngineKind::io_uring, EngineKind::threads);
inline std::string engine_word(EngineKind kind) {
  return kind == EngineKind::threads ? "threads" : "io_uring";
}
inline std::string engine_of_case(const testing::TestParamInfo<EngineKind>& chosen) {
  return engine_word(chosen.param);
}

class RealWorld {
 public:
  explicit RealWorld(EngineKind engine);
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
  std::unique_ptr<Helpers> helpers_ = make_helpers();

 public:
  sim::MemoryLog log;
  Home home;

 private:
  Engine& make_engine(EngineKind kind);
};

}  // namespace test
