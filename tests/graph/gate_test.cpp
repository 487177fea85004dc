#include "graph/base/gate.h"

#include <gtest/gtest.h>

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

}  // namespace
