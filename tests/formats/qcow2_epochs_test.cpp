// Who was inside when something was taken away is waited for, and nobody else.
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <vector>

#include "formats/qcow2/epochs.h"
#include "tests/support/seed.h"
#include "tests/support/world.h"

namespace {

using formats::qcow2::Epochs;

asio::awaitable<void> wait_for(Epochs& epochs, std::uint64_t epoch, bool& over) {
  co_await epochs.over(epoch);
  over = true;
}

class EpochsTest : public testing::Test {
 protected:
  // Set once the epoch is over.
  bool& follow(std::uint64_t epoch) {
    bool& over = flags_.emplace(flags_.size(), false).first->second;
    spawn(world_.home.executor, gate_.enter_anyway(), wait_for(epochs_, epoch, over));
    world_.scheduler.run();
    return over;
  }
  void settle() { world_.scheduler.run(); }
  sim::World world_{1};
  Epochs epochs_;

 private:
  std::map<std::size_t, bool> flags_;
  Gate gate_;
};

TEST_F(EpochsTest, NothingIsWaitedForWhenNobodyIsInside) { EXPECT_TRUE(follow(epochs_.end())); }

TEST_F(EpochsTest, WaitForThoseWhoWereInside) {
  auto pin = std::make_optional(epochs_.enter());
  bool& over = follow(epochs_.end());
  EXPECT_FALSE(over);
  pin.reset();
  settle();
  EXPECT_TRUE(over);
}

TEST_F(EpochsTest, ThoseWhoComeLaterAreNotWaitedFor) {
  auto before = std::make_optional(epochs_.enter());
  const std::uint64_t epoch = epochs_.end();
  const Epochs::Pin after = epochs_.enter();
  before.reset();
  EXPECT_TRUE(epochs_.is_over(epoch));
}

TEST_F(EpochsTest, OlderOnesAreWaitedForToo) {
  auto oldest = std::make_optional(epochs_.enter());
  (void)epochs_.end();
  auto newer = std::make_optional(epochs_.enter());
  const std::uint64_t epoch = epochs_.end();
  newer.reset();
  EXPECT_FALSE(epochs_.is_over(epoch));
  oldest.reset();
  EXPECT_TRUE(epochs_.is_over(epoch));
}

TEST_F(EpochsTest, APinThatIsPassedOnCountsOnce) {
  Epochs::Pin first = epochs_.enter();
  Epochs::Pin second = std::move(first);
  const std::uint64_t epoch = epochs_.end();
  first = std::move(second);
  EXPECT_FALSE(epochs_.is_over(epoch));
  first.release();
  first.release();
  EXPECT_TRUE(epochs_.is_over(epoch));
}

TEST_F(EpochsTest, APinThatGetsAnotherLetsGoOfItsOwn) {
  Epochs::Pin pin = epochs_.enter();
  const std::uint64_t epoch = epochs_.end();
  pin = epochs_.enter();
  EXPECT_TRUE(epochs_.is_over(epoch));
}

TEST_F(EpochsTest, AgreeWithAListOfEverybody) {
  const std::uint64_t seed = test::seed();
  SCOPED_TRACE(test::repeat_with(seed));
  sim::World dice(seed);
  struct Inside {
    Epochs::Pin pin;
    std::size_t born;  // number of ends before it
  };
  std::vector<Inside> inside;
  std::vector<std::uint64_t> ends;
  for (int step = 0; step < 5000; ++step) {
    const std::uint64_t kind = dice.scheduler.choose(5);
    if (kind < 2) {
      inside.push_back({epochs_.enter(), ends.size()});
    } else if (kind < 4 && !inside.empty()) {
      inside.erase(inside.begin() +
                   static_cast<std::ptrdiff_t>(dice.scheduler.choose(inside.size())));
    } else {
      ends.push_back(epochs_.end());
    }
    for (std::size_t i = ends.size() > 20 ? ends.size() - 20 : 0; i < ends.size(); ++i) {
      bool waits = false;
      for (const Inside& each : inside) waits = waits || each.born <= i;
      ASSERT_EQ(epochs_.is_over(ends[i]), !waits) << "step " << step << ", end " << i;
    }
  }
}

}  // namespace
