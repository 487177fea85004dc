#include "src/refusals.h"

#include <gtest/gtest.h>

#include "tests/support/world.h"

namespace app {
namespace {

class AFlood : public testing::Test {
 protected:
  void refuse(int count) {
    Peer peer;
    peer.text = "10.0.0.1:5";
    for (int i = 0; i < count; ++i) refusals.note(peer);
  }
  void wait(Clock::Duration time) {
    const auto root = [](sim::World& in, Clock::Duration long_) -> Task<> {
      const std::unique_ptr<Timer> timer = in.clock.timer(long_);
      co_await timer->wait();
      co_return ok;
    };
    ASSERT_TRUE(world.run(root(world, time)));
  }

  sim::World world{1};
  std::vector<std::string>& lines = world.log.lines;
  Refusals refusals{world.clock, world.log, "tcp:[::]:1"};
};

TEST_F(AFlood, NamesTheFirstFewAndCountsTheOthers) {
  refuse(1000);
  ASSERT_EQ(lines.size(), 5u);
  EXPECT_EQ(lines[4], "client 10.0.0.1:5: refused, tcp:[::]:1 does not allow it");

  wait(std::chrono::seconds(10));
  refuse(1);

  ASSERT_EQ(lines.size(), 7u);
  EXPECT_EQ(lines[5], "tcp:[::]:1: 995 more clients were refused");
  EXPECT_EQ(lines[6], lines[0]);
}

TEST_F(AFlood, IsSummedUpAtTheEnd) {
  refuse(7);
  refusals.sum_up();
  refusals.sum_up();

  ASSERT_EQ(lines.size(), 6u);
  EXPECT_EQ(lines[5], "tcp:[::]:1: 2 more clients were refused");
}

TEST_F(AFlood, ThatTricklesIsNamedInFull) {
  for (int i = 0; i < 20; ++i) {
    refuse(1);
    wait(std::chrono::seconds(2));
  }

  EXPECT_EQ(lines.size(), 20u);
}

}  // namespace
}  // namespace app
