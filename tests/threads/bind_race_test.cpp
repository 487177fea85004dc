// Servers that find the same stale socket at the same moment, as after a crash of the machine.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <barrier>
#include <filesystem>
#include <optional>
#include <thread>
#include <vector>

#include "src/bind.h"
#include "tests/support/real_world.h"

namespace app {
namespace {

constexpr std::size_t servers = 4;

bool answers(const std::string& path) {
  const Descriptor caller(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  path.copy(name.sun_path, sizeof name.sun_path - 1);
  return ::connect(caller.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) == 0;
}

TEST(StaleSocket, GoesToExactlyOneOfTheServersThatWantIt) {
  const test::TempDir folder(std::filesystem::temp_directory_path());
  const std::string path = folder.path("s");

  for (int round = 0; round < 200; ++round) {
    std::array<std::optional<Result<Descriptor>>, servers> bound;
    std::barrier start(servers);
    {
      std::vector<std::jthread> threads;
      for (auto& mine : bound) {
        threads.emplace_back([&] {
          // real threads, but each waits in a time of its own: for a turn of the others it asks
          // until it gets one
          sim::World world(1);
          start.arrive_and_wait();
          do {
            mine = world.run(bind_local(world.clock, path, {}));
          } while (!*mine && mine->error().message.starts_with("another process"));
        });
      }
    }
    int winners = 0;
    for (const auto& result : bound) {
      winners += result->has_value() ? 1 : 0;
      if (!*result) {
        EXPECT_EQ(result->error().message, "Address already in use");
      }
    }
    ASSERT_EQ(winners, 1) << "round " << round;
    ASSERT_TRUE(answers(path)) << "round " << round;
  }
}

}  // namespace
}  // namespace app
