// world.h - a simulated worker: what a graph needs to live, from one seed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "graph/base/home.h"
#include "tests/support/sim_disk.h"
#include "tests/support/sim_executor.h"

namespace sim {

// Keeps what was logged, to be looked at.
class MemoryLog final : public Log {
 public:
  bool enabled(LogLevel) const override { return true; }
  void set_level(LogLevel) override {}
  std::vector<std::string> lines;
  std::vector<std::string> warnings;
  // Of each line: "connection|export|request", with "-" for what it does not say.
  std::vector<std::string> about;

 private:
  void put(LogLevel level, std::string_view text, const LogFields& fields) override {
    const auto field = [](std::optional<std::string_view> value) {
      return std::string(value.value_or("-"));
    };
    lines.emplace_back(text);
    about.push_back(field(fields.connection) + "|" + field(fields.export_name) + "|" +
                    field(fields.request));
    if (level == LogLevel::warning) warnings.emplace_back(text);
  }
};

// Has no files.
class NoEngine final : public Engine {
 public:
  std::string_view name() const override { return "none"; }
  SysTask<std::unique_ptr<EngineFile>> open(const std::string&, OpenFlags) override;
  std::unique_ptr<EngineFile> take_over(std::unique_ptr<HandedFile>) override { return nullptr; }
  SysTask<> remove(const std::string&) override;
};

// Does the work on the spot, or, by lot, somewhat later.
class SimHelpers final : public Helpers {
 public:
  explicit SimHelpers(Scheduler& scheduler) : scheduler_(scheduler) {}
  asio::awaitable<void> run(Share& share, std::function<void()> work) override;
  Shares& shares() override { return shares_; }

 private:
  Scheduler& scheduler_;
  Shares shares_{4, 2};
};

class World {
 public:
  explicit World(std::uint64_t seed);
  World(std::uint64_t seed, Engine& engine);
  // One process of those that share `disk`.
  World(std::uint64_t seed, Disk& disk);

  template <class T>
  Result<T> run(Task<T> task) {
    return sim::run(scheduler, std::move(task));
  }

  Scheduler scheduler;

 private:
  std::unique_ptr<Engine> own_engine_;  // where the caller brings none
  World(std::uint64_t seed, Disk* disk, Engine* engine);

 public:
  SimClock clock{scheduler};
  BufferPool buffers;
  MemoryLog log;
  SimHelpers helpers{scheduler};
  Home home;
};

}  // namespace sim
