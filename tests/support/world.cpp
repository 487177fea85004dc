#include "tests/support/world.h"

#include <asio/post.hpp>
#include <asio/use_awaitable.hpp>
#include <cerrno>

namespace sim {

SysTask<std::unique_ptr<EngineFile>> NoEngine::open(const std::string&, OpenFlags) {
  co_return std::unexpected(Errno{ENOENT});
}
SysTask<> NoEngine::remove(const std::string&) { co_return std::unexpected(Errno{ENOENT}); }

asio::awaitable<void> SimHelpers::run(Share& share, std::function<void()> work) {
  const Share::Turn turn = co_await share.enter();
  if (scheduler_.one_in(2)) co_await asio::post(scheduler_.executor(), asio::use_awaitable);
  work();
  if (scheduler_.one_in(2)) co_await asio::post(scheduler_.executor(), asio::use_awaitable);
}

World::World(std::uint64_t seed) : World(seed, nullptr, nullptr) {}
World::World(std::uint64_t seed, Engine& engine) : World(seed, nullptr, &engine) {}
World::World(std::uint64_t seed, Disk& disk) : World(seed, &disk, nullptr) {}

World::World(std::uint64_t seed, Disk* disk, Engine* engine)
    : scheduler(seed),
      own_engine_(disk != nullptr
                      ? std::unique_ptr<Engine>(std::make_unique<SimEngine>(*disk, scheduler))
                      : std::make_unique<NoEngine>()),
      home{scheduler.executor(), clock, engine != nullptr ? *engine : *own_engine_, buffers, log, helpers} {}

}  // namespace sim
