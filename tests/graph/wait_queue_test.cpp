#include "graph/base/wait_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/support/world.h"

namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class Waiting : public testing::Test {
 protected:
  void wait(int who) {
    spawn(world.home.executor, Gate::Pass(), waiter(queue, who, woken));
    world.scheduler.run();
  }
  sim::World world{1};
  WaitQueue queue;
  std::vector<int> woken;

 private:
  static asio::awaitable<void> waiter(WaitQueue& on, int who, std::vector<int>& log) {
    co_await on.wait();
    log.push_back(who);
  }
};

TEST_F(Waiting, FirstComeFirstServed) {
  wait(1);
  wait(2);
  queue.notify_one();
  world.scheduler.run();
  EXPECT_THAT(woken, ElementsAre(1));
  queue.notify_one();
  world.scheduler.run();
  EXPECT_THAT(woken, ElementsAre(1, 2));
  EXPECT_TRUE(queue.empty());
}

TEST_F(Waiting, NobodyRunsInsideOfNotify) {
  wait(1);
  queue.notify_all();
  EXPECT_THAT(woken, IsEmpty());
  world.scheduler.run();
  EXPECT_THAT(woken, ElementsAre(1));
}

TEST_F(Waiting, ANotificationThatNobodyWaitsForIsLost) {
  queue.notify_one();
  queue.notify_all();
  wait(1);
  EXPECT_THAT(woken, IsEmpty());
  queue.notify_all();
  world.scheduler.run();
}

TEST_F(Waiting, WhoWaitsAgainMeanwhileWaitsForTheNextOne) {
  wait(1);
  queue.notify_all();
  wait(2);  // lets 1 run, too
  EXPECT_THAT(woken, ElementsAre(1));
  queue.notify_all();
  world.scheduler.run();
  EXPECT_THAT(woken, ElementsAre(1, 2));
}

}  // namespace
