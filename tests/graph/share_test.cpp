#include "graph/base/share.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <list>

#include "graph/base/task.h"
#include "tests/support/sim_executor.h"

namespace {

// A call that is under way until it is told to end.
struct Call {
  bool begun = false;
  bool end = false;
  bool ended = false;
};

class SharedEngine : public testing::Test {
 protected:
  Call& start(Share& share) {
    Call& call = calls_.emplace_back();
    spawn(scheduler_.executor(), Gate::Pass(), run(share, call));
    scheduler_.run();
    return call;
  }
  void end(Call& call) {
    call.end = true;
    changed_.notify_all();
    scheduler_.run();
  }
  void end_all() {
    while (std::ranges::any_of(calls_, [](const Call& call) { return !call.ended; })) {
      for (Call& call : calls_) end(call);
    }
  }

  Shares shares{8, 4};

 private:
  asio::awaitable<void> run(Share& share, Call& call) {
    const Share::Turn turn = co_await share.enter();
    call.begun = true;
    while (!call.end) co_await changed_.wait();
    call.ended = true;
  }
  sim::Scheduler scheduler_{1};
  WaitQueue changed_;
  std::list<Call> calls_;
};

TEST_F(SharedEngine, IsOccupiedByNoFileAlone) {
  Share stuck(shares);
  Share other(shares);
  for (int i = 0; i < 100; ++i) start(stuck);
  EXPECT_EQ(stuck.running(), 4U);

  EXPECT_TRUE(start(other).begun);

  end_all();
  EXPECT_EQ(shares.running(), 0U);
}

TEST_F(SharedEngine, LeavesATurnForEachOfMoreFilesThanItHasTurns) {
  std::list<Share> stuck;
  for (int i = 0; i < 20; ++i) {
    for (int j = 0; j < 10; ++j) start(stuck.emplace_back(shares));
  }
  Share late(shares);

  EXPECT_TRUE(start(late).begun);

  end_all();
}

TEST_F(SharedEngine, TakesItsOwnCallsInTheirOrder) {
  Share file(shares);
  Call* running[4];
  for (Call*& call : running) call = &start(file);
  const Call& fifth = start(file);
  const Call& sixth = start(file);
  EXPECT_FALSE(fifth.begun);

  end(*running[2]);

  EXPECT_TRUE(fifth.begun);
  EXPECT_FALSE(sixth.begun);
  end_all();
  EXPECT_TRUE(sixth.ended);
}

TEST_F(SharedEngine, GivesMoreAgainWhenOthersAreDone) {
  Share file(shares);
  std::list<Share> others;
  std::list<Call*> theirs;
  for (int i = 0; i < 7; ++i) theirs.push_back(&start(others.emplace_back(shares)));
  Call& first = start(file);
  for (int i = 0; i < 10; ++i) start(file);
  EXPECT_EQ(file.running(), 1U);

  for (Call* call : theirs) end(*call);
  end(first);

  EXPECT_EQ(file.running(), 4U);
  end_all();
}

}  // namespace
