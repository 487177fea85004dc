#include "graph/base/memory_account.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/support/world.h"

namespace {

// Takes `bytes`, and notes who it was.
asio::awaitable<void> take(MemoryBranch& branch, std::size_t bytes, int who,
                           std::vector<int>& order, const bool& given_up) {
  const bool taken = co_await branch.take(bytes, given_up);
  order.push_back(taken ? who : -who);
}

class AnAccount : public testing::Test {
 protected:
  void start(MemoryBranch& branch, std::size_t bytes, int who) {
    spawn(world.home.executor, Gate::Pass(), take(branch, bytes, who, order, given_up));
    world.scheduler.settle();
  }

  sim::World world{1};
  MemoryAccount account{100};
  MemoryBranch here{account, world.home.executor};
  MemoryBranch there{account, world.home.executor};
  std::vector<int> order;
  bool given_up = false;
};

TEST_F(AnAccount, LendsAsMuchAsItHas) {
  EXPECT_TRUE(here.try_take(60));
  EXPECT_TRUE(there.try_take(40));
  EXPECT_FALSE(here.try_take(1));

  there.give(40);

  EXPECT_TRUE(here.try_take(40));
  EXPECT_EQ(account.used(), 100U);
  here.give(100);
}

TEST_F(AnAccount, LendsMoreThanItHasToWhoeverIsAlone) {
  EXPECT_TRUE(here.try_take(1000));
  EXPECT_FALSE(there.try_take(1));

  here.give(1000);

  EXPECT_EQ(account.used(), 0U);
}

TEST_F(AnAccount, ServesThoseWhoWaitInTheirOrder) {
  ASSERT_TRUE(here.try_take(90));
  start(here, 50, 1);
  start(here, 5, 2);  // would fit at once, and has to wait all the same
  EXPECT_TRUE(order.empty());
  EXPECT_TRUE(account.pressed());
  EXPECT_FALSE(here.try_take(1));

  here.give(45);
  world.scheduler.settle();

  EXPECT_EQ(order, (std::vector<int>{1, 2}));
  EXPECT_FALSE(account.pressed());
  here.give(100);
}

TEST_F(AnAccount, HearsOfWhatIsGivenBackOnAnotherWorker) {
  ASSERT_TRUE(there.try_take(100));
  start(here, 10, 1);
  start(there, 10, 2);
  EXPECT_TRUE(order.empty());

  there.give(100);
  world.scheduler.settle();

  EXPECT_EQ(account.used(), 20U);
  EXPECT_EQ(order.size(), 2U);
  here.give(20);
}

TEST_F(AnAccount, ServesThoseWhoWaitInTheirOrderWhateverWorkerTheyAreOn) {
  ASSERT_TRUE(here.try_take(90));
  start(there, 50, 1);
  start(here, 5, 2);
  start(there, 5, 3);
  EXPECT_FALSE(here.try_take(1));
  EXPECT_TRUE(order.empty());

  here.give(45);
  world.scheduler.settle();
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
  here.give(45);
  world.scheduler.settle();

  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
  here.give(60);
}

TEST_F(AnAccount, TurnsToTheNextWhenTheOldestGivesUp) {
  ASSERT_TRUE(here.try_take(90));
  bool oldest_has_given_up = false;
  spawn(world.home.executor, Gate::Pass(), take(there, 50, 1, order, oldest_has_given_up));
  world.scheduler.settle();
  start(here, 10, 2);

  oldest_has_given_up = true;
  there.wake();
  world.scheduler.settle();

  EXPECT_EQ(order, (std::vector<int>{-1, 2}));
  here.give(100);
}

// Takes little, again and again, until it is told to stop.
asio::awaitable<void> keep_busy(MemoryBranch& branch, std::size_t& times, const bool& stop) {
  const bool never = false;
  while (!stop) {
    if (!co_await branch.take(30, never)) co_return;
    ++times;
    co_await yield();
    branch.give(30);
  }
}

TEST(Account, StarvesNobodyWhoWantsMuch) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    sim::World world(seed);
    MemoryAccount account(100);
    MemoryBranch small_ones(account, world.home.executor);
    MemoryBranch large_one(account, world.home.executor);
    std::size_t times = 0;
    bool stop = false;
    for (int i = 0; i < 5; ++i) {
      spawn(world.home.executor, Gate::Pass(), keep_busy(small_ones, times, stop));
    }
    const auto wait_for_all = [](MemoryBranch& branch, std::size_t& others, bool& out,
                                 std::size_t& passed_by) -> Task<> {
      while (others < 100) co_await yield();
      const std::size_t before = others;
      const bool never = false;
      const bool taken = co_await branch.take(100, never);
      passed_by = others - before;
      out = true;
      if (taken) branch.give(100);
      co_return ok;
    };
    std::size_t passed_by = 0;

    ASSERT_TRUE(world.run(wait_for_all(large_one, times, stop, passed_by)));
    world.scheduler.settle();

    EXPECT_LE(passed_by, 5U) << "seed " << seed;  // those who were in the line before it
    EXPECT_EQ(account.used(), 0U);
  }
}

TEST_F(AnAccount, LetsThoseGoWhoHaveGivenUp) {
  ASSERT_TRUE(here.try_take(100));
  start(here, 10, 1);

  given_up = true;
  here.wake();
  world.scheduler.settle();

  EXPECT_EQ(order, std::vector<int>{-1});
  EXPECT_FALSE(account.pressed());
  here.give(100);
}

}  // namespace
