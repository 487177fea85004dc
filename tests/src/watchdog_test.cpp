#include "src/watchdog.h"

#include <gtest/gtest.h>

#include <asio/io_context.hpp>

#include "tests/support/world.h"

namespace app {
namespace {

constexpr auto limit = std::chrono::seconds(8);

// A daemon with two more loops, which run only when the test lets them, in simulated time.
class ADaemon : public testing::Test {
 protected:
  // Lets `time` pass; the loops answer once per second, those of them that do.
  void pass(Clock::Duration time, std::initializer_list<asio::io_context*> answering) {
    const auto root = [](sim::World& in, Clock::Duration long_,
                         std::vector<asio::io_context*> loops) -> Task<> {
      for (Clock::Duration gone{}; gone < long_; gone += std::chrono::seconds(1)) {
        for (asio::io_context* loop : loops) loop->restart(), loop->poll();
        const std::unique_ptr<Timer> timer = in.clock.timer(std::chrono::seconds(1));
        co_await timer->wait();
      }
      co_return ok;
    };
    std::vector<asio::io_context*> loops(answering);
    ASSERT_TRUE(world.run(root(world, time, std::move(loops))));
  }
  void TearDown() override {
    const auto root = [](Watchdog& dog) -> Task<> {
      co_await dog.stop();
      co_return ok;
    };
    ASSERT_TRUE(world.run(root(watchdog)));
  }

  sim::World world{1};
  asio::io_context first{1};
  asio::io_context second{1};
  int pings = 0;
  Watchdog watchdog{
      world.home, limit, [this] { ++pings; }, {first.get_executor(), second.get_executor()}};
};

TEST_F(ADaemon, IsAliveAtLeastTwicePerLimit) {
  watchdog.start();

  pass(10 * limit, {&first, &second});

  EXPECT_GE(pings, 20);
  EXPECT_LE(pings, 41);
}

TEST_F(ADaemon, IsNotAliveWhenOneLoopHangs) {
  watchdog.start();
  pass(limit, {&first, &second});
  const int before = pings;

  pass(10 * limit, {&first});

  EXPECT_LE(pings, before + 1);  // the one that was under way
  ASSERT_EQ(world.log.lines.size(), 1u);
  EXPECT_TRUE(world.log.lines[0].starts_with("worker 1 has not answered for "))
      << world.log.lines[0];
}

TEST_F(ADaemon, IsAliveAgainWhenTheLoopIsBack) {
  watchdog.start();
  pass(2 * limit, {&first});
  const int before = pings;

  pass(2 * limit, {&first, &second});

  EXPECT_GE(pings, before + 4);
  EXPECT_EQ(world.log.lines.back(), "worker 1 answers again");
}

}  // namespace
}  // namespace app
