// Tables that nobody uses leave memory after a while, and no timer is left behind for them.
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <vector>

#include "formats/qcow2/cache_cleaner.h"
#include "tests/support/graph_fixture.h"
#include "tests/support/qcow2_stack.h"

namespace {

using namespace std::chrono_literals;
using formats::qcow2::CacheCleaner;
using test::code_of;
using test::Qcow2Stack;

OptionValue number(std::int64_t value) {
  OptionValue option;
  option.data = value;
  return option;
}

class CacheCleaning : public testing::Test {
 protected:
  static constexpr std::uint64_t unit = 4096;
  CacheCleaning() {
    shape_.geometry.cluster_bits = 12;
    shape_.size = 4096 * unit;
    disk_.make("disk", test::empty_qcow2(shape_));
  }
  void open(Qcow2Stack::Keys keys) {
    stack_ = std::make_unique<Qcow2Stack>(world_, "disk", Qcow2Stack::Mode::writable,
                                          Qcow2Stack::Caching::buffered, std::move(keys));
  }
  // Calls that a read of one byte costs the file.
  unsigned cost() {
    const unsigned before = calls();
    EXPECT_OK(stack_->read({0, 1}));
    return calls() - before;
  }
  unsigned calls() const { return disk_.calls(sim::Call::read) + disk_.calls(sim::Call::read_now); }

  test::Qcow2Shape shape_;
  sim::Disk disk_{1};
  sim::World world_{1, disk_};
  std::unique_ptr<Qcow2Stack> stack_;
};

TEST_F(CacheCleaning, WhatIsNotUsedForAnIntervalIsReadAgain) {
  for (const std::int64_t seconds : {0, 20, 600}) {
    SCOPED_TRACE(seconds);
    seconds == 600 ? open({}) : open({{"cache-clean-interval", number(seconds)}});
    ASSERT_OK(stack_->write(0, "a"));
    ASSERT_OK(stack_->flush());
    const unsigned cached = cost();

    world_.scheduler.pass(2 * std::chrono::seconds(seconds == 0 ? 10'000 : seconds) + 1s);

    EXPECT_EQ(cost(), seconds == 0 ? cached : cached + 1);
    EXPECT_EQ(cost(), cached);
    ASSERT_OK(stack_->close());
    world_.scheduler.run();  // no timer is left
  }
}

TEST_F(CacheCleaning, WhatIsUsedOrNotYetWrittenStays) {
  open({{"cache-clean-interval", number(20)}});
  ASSERT_OK(stack_->write(0, "a"));
  ASSERT_OK(stack_->flush());
  const unsigned cached = cost();

  for (int i = 0; i < 10; ++i) {
    world_.scheduler.pass(15s);
    EXPECT_EQ(cost(), cached);
  }
  ASSERT_OK(stack_->write(unit, "b"));
  world_.scheduler.pass(100s);
  EXPECT_EQ(stack_->read({unit, 1}).value_or(""), "b");
  ASSERT_OK(stack_->close());
}

TEST(CacheCleaner, SleepsWhenNothingIsLeftAndWakesAgain) {
  sim::World world(1);
  int rounds = 0;
  CacheCleaner cleaner(10s, [&] { return ++rounds % 3 != 0; });

  cleaner.wake(world.home);
  cleaner.wake(world.home);
  world.scheduler.run();
  EXPECT_EQ(rounds, 3);
  cleaner.wake(world.home);
  world.scheduler.pass(15s);
  EXPECT_EQ(rounds, 4);
  cleaner.stop();
  world.scheduler.run();
  EXPECT_EQ(rounds, 4);
}

TEST_F(CacheCleaning, SlicesAreAsLargeAsIsSaid) {
  for (const std::int64_t size : {0, 256, 1000, 8192}) {
    open({{"l2-cache-entry-size", number(size)}});
    EXPECT_EQ(code_of(stack_->opened()), Errc::invalid_argument) << size;
    EXPECT_NE(stack_->opened().error().message.find("power of two between 512 and"),
              std::string::npos);
  }
  for (const std::int64_t size : {512, 1024, 4096}) {
    SCOPED_TRACE(size);
    const std::uint64_t entries = static_cast<std::uint64_t>(size) / 8;  // 8 bytes each
    open({{"l2-cache-entry-size", number(size)}});
    ASSERT_OK(stack_->write(0, "a"));
    ASSERT_OK(stack_->close());
    open({{"l2-cache-entry-size", number(size)}});
    ASSERT_OK(stack_->opened());
    ASSERT_OK(stack_->read({0, 1}));
    const unsigned before = calls();
    ASSERT_OK(stack_->read({(entries - 1) * unit, 1}));
    EXPECT_EQ(calls(), before);
    if (entries < 512) {
      ASSERT_OK(stack_->read({entries * unit, 1}));
      EXPECT_EQ(calls(), before + 1);
    }
    ASSERT_OK(stack_->close());
  }
}

}  // namespace
