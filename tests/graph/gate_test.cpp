#include "graph/base/gate.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/world.h"

namespace {

TEST(Gate, LetsWorkInAgainOnlyWhenEveryCloserHasOpenedIt) {
  sim::World world(1);
  Gate gate;
  gate.close();
  gate.close();
  bool inside = false;
  spawn(world.home.executor, Gate::Pass(), [](Gate& door, bool& entered) -> asio::awaitable<void> {
    const Gate::Pass pass = co_await door.enter();
    entered = true;
  }(gate, inside));

  gate.open();
  world.scheduler.run();
  EXPECT_FALSE(inside);

  gate.open();
  world.scheduler.run();
  EXPECT_TRUE(inside);
  EXPECT_EQ(gate.inside(), 0U);
}

TEST(Gate, ShutSendsAwayWhoWaitsAndWhoComes) {
  sim::World world(1);
  Gate gate;
  gate.close();
  std::vector<bool> entered;
  const auto visit = [](Gate& door, std::vector<bool>& log) -> asio::awaitable<void> {
    const Gate::Pass pass = co_await door.enter();
    log.push_back(static_cast<bool>(pass));
  };
  spawn(world.home.executor, Gate::Pass(), visit(gate, entered));
  world.scheduler.run();

  gate.shut();
  spawn(world.home.executor, Gate::Pass(), visit(gate, entered));
  world.scheduler.run();

  EXPECT_EQ(entered, (std::vector<bool>{false, false}));
  EXPECT_FALSE(gate.try_enter());
  gate.open();
  EXPECT_TRUE(gate.closed());
}

}  // namespace
