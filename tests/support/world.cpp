#include "tests/support/world.h"

#include <cerrno>

namespace sim {

SysTask<std::unique_ptr<EngineFile>> NoEngine::open(const std::string&, OpenFlags) {
  co_return std::unexpected(Errno{ENOENT});
}
SysTask<> NoEngine::remove(const std::string&) { co_return std::unexpected(Errno{ENOENT}); }

World::World(std::uint64_t seed) : World(seed, none_) {}
World::World(std::uint64_t seed, Engine& engine)
    : scheduler(seed), home{scheduler.executor(), clock, engine, buffers, log} {}

}  // namespace sim
