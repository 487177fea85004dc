// A disk becomes longer and shorter: what is new is zero, whatever lies below or lay there before.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "graph/snapshot_change.h"
#include "tests/support/graph_fixture.h"
#include "tests/support/qcow2_stack.h"
#include "tests/support/seed.h"

namespace {

using test::code_of;
using test::Qcow2Stack;

struct Shown {
  const char* name;
  std::uint32_t version;
  unsigned cluster_bits;
  bool extended;
  bool backing;
};
constexpr Shown shapes[] = {{"v3", 3, 12, false, false},
                            {"tiny_overlay", 3, 9, false, true},
                            {"v2_overlay", 2, 9, false, true},
                            {"extended_overlay", 3, 14, true, true}};

class Resize : public testing::TestWithParam<Shown> {
 protected:
  Resize() {
    const Shown& shown = GetParam();
    shape_.version = shown.version;
    shape_.geometry.cluster_bits = shown.cluster_bits;
    shape_.geometry.extended_l2 = shown.extended;
    shape_.size = 10 * unit() + 100;
    if (shown.backing) {
      shape_.backing = "base";
      disk.make("base", std::vector<std::byte>(25 * unit() + 33, std::byte{'b'}));
    }
    disk.make("disk", test::empty_qcow2(shape_));
    stack = std::make_unique<Qcow2Stack>(world, "disk");
  }

  std::uint64_t unit() const { return shape_.geometry.cluster_size(); }
  std::uint64_t draw(std::uint64_t n) { return world.scheduler.choose(n); }
  std::string content() {
    const auto bytes = stack->read({0, stack->view().size()});
    EXPECT_TRUE(bytes) << bytes.error().message;
    return bytes.value_or("");
  }
  std::string fresh() const { return std::string(shape_.size, GetParam().backing ? 'b' : '\0'); }
  void expect_clean() {
    EXPECT_OK(stack->close());
    const test::Qcow2Audit audit = test::audit_qcow2(disk.content("disk"));
    EXPECT_TRUE(audit.errors.empty()) << audit.errors.front();
    EXPECT_EQ(audit.leaked, 0U);
  }

  const std::uint64_t seed = test::seed();
  sim::Disk disk{seed};
  sim::World world{seed, disk};
  test::Qcow2Shape shape_;
  std::unique_ptr<Qcow2Stack> stack;
};
INSTANTIATE_TEST_SUITE_P(Images, Resize, testing::ValuesIn(shapes),
                         [](const auto& chosen) { return std::string(chosen.param.name); });

TEST_P(Resize, WhatIsNewIsZeroHoweverOftenItComesAndGoes) {
  SCOPED_TRACE(test::repeat_with(seed));
  std::string model = fresh();
  for (int round = 0; round < 12; ++round) {
    for (int i = 0; i < 4; ++i) {
      const std::uint64_t offset = draw(model.size());
      const std::uint64_t length =
          1 + draw(std::min<std::uint64_t>(model.size() - offset, 3 * unit()));
      const std::string data(length, static_cast<char>(1 + draw(100)));
      ASSERT_OK(stack->write(offset, data));
      model.replace(offset, length, data);
    }
    const std::uint64_t size = 1 + draw(draw(4) == 0 ? 400 * unit() : 40 * unit());
    ASSERT_OK(stack->resize(size));
    model.resize(size, '\0');
    ASSERT_EQ(stack->view().size(), size);
    ASSERT_EQ(content(), model) << "round " << round;
  }
  ASSERT_OK(stack->close());
  stack = std::make_unique<Qcow2Stack>(world, "disk");
  EXPECT_EQ(content(), model);
  expect_clean();
}

TEST_P(Resize, SnapshotsKeepTheirSize) {
  ASSERT_OK(stack->write(3, "before"));
  const std::string before = content();
  ASSERT_OK(world.run(graph::take_snapshot(stack->node(), "a")));
  const auto resized = stack->resize(17 * unit() + 5);
  if (GetParam().version == 2) {
    EXPECT_EQ(code_of(resized), Errc::not_supported);
    return;
  }
  ASSERT_OK(resized);
  ASSERT_OK(stack->write(16 * unit(), "behind"));

  ASSERT_OK(stack->apply("a"));
  EXPECT_EQ(stack->view().size(), shape_.size);
  EXPECT_EQ(content(), before);
  ASSERT_OK(world.run(graph::delete_snapshot(stack->node(), "a")));
  expect_clean();
}

TEST_P(Resize, TheFileEndsWithWhatIsUsed) {
  ASSERT_OK(stack->resize(400 * unit()));
  ASSERT_OK(stack->write(0, std::string(400 * unit(), 'x')));
  ASSERT_OK(stack->flush());
  const std::uint64_t long_file = disk.size("disk");
  ASSERT_GT(long_file, 400 * unit());

  ASSERT_OK(stack->resize(10 * unit()));

  EXPECT_LT(disk.size("disk"), long_file - 100 * unit());
  ASSERT_OK(stack->resize(20 * unit()));
  ASSERT_OK(stack->write(10 * unit() + 7, "again"));
  std::string model(10 * unit(), 'x');
  model.resize(20 * unit(), '\0');
  model.replace(10 * unit() + 7, 5, "again");
  EXPECT_EQ(content(), model);
  expect_clean();
}

TEST_P(Resize, NoFurtherThanTheTablesReach) {
  const auto refused = stack->resize(shape_.geometry.size_max() + 1);
  EXPECT_FALSE(refused);
  EXPECT_EQ(stack->view().size(), shape_.size);
  expect_clean();
}

}  // namespace
