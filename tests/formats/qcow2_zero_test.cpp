// Zeroes that keep their space (Z-4): who writes there later never finds the file full.
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
  unsigned cluster_bits;
  bool extended;
  bool backing;
};
constexpr Shown shapes[] = {{"plain", 12, false, false},
                            {"overlay", 12, false, true},
                            {"extended", 14, true, false},
                            {"extended_overlay", 14, true, true}};

class ReservedZeroes : public testing::TestWithParam<Shown> {
 protected:
  ReservedZeroes() {
    shape_.geometry.cluster_bits = GetParam().cluster_bits;
    shape_.geometry.extended_l2 = GetParam().extended;
    shape_.size = 100 * unit() + 512;
    if (GetParam().backing) {
      shape_.backing = "base";
      disk.make("base", std::vector<std::byte>(shape_.size, std::byte{'b'}));
    }
    disk.make("disk", test::empty_qcow2(shape_));
    stack = std::make_unique<Qcow2Stack>(world, "disk");
  }
  std::uint64_t unit() const { return shape_.geometry.cluster_size(); }
  char fresh() const { return GetParam().backing ? 'b' : '\0'; }
  // From here on nothing new fits.
  void fill() {
    ASSERT_OK(stack->flush());
    std::uint64_t used = disk.allocated("disk");
    if (GetParam().backing) used += disk.allocated("base");
    disk.traits.capacity = used;
  }
  void expect_clean() {
    EXPECT_OK(stack->close());
    const test::Qcow2Audit audit = test::audit_qcow2(disk.content("disk"));
    EXPECT_TRUE(audit.errors.empty()) << audit.errors.front();
    EXPECT_EQ(audit.leaked, 0U);
  }

  sim::Disk disk{1};
  sim::World world{1, disk};
  test::Qcow2Shape shape_;
  std::unique_ptr<Qcow2Stack> stack;
};
INSTANTIATE_TEST_SUITE_P(Images, ReservedZeroes, testing::ValuesIn(shapes),
                         [](const auto& chosen) { return std::string(chosen.param.name); });

TEST_P(ReservedZeroes, CanBeWrittenWhenTheDiskIsFull) {
  const Range range{unit() / 2, 20 * unit()};
  std::string model(shape_.size, fresh());
  model.replace(range.offset, range.length, range.length, '\0');
  ASSERT_OK(stack->zero(range));
  fill();

  EXPECT_EQ(code_of(stack->write(50 * unit(), std::string(20 * unit(), 'x'))), Errc::no_space);
  for (std::uint64_t at = range.offset; at < range.end(); at += 3 * 512) {
    ASSERT_OK(stack->write(at, "new")) << at;
    model.replace(at, 3, "new");
  }

  EXPECT_EQ(stack->read({0, 30 * unit()}).value_or(""), model.substr(0, 30 * unit()));
  expect_clean();
}

TEST_P(ReservedZeroes, OverASnapshotHaveAPlaceOfTheirOwn) {
  ASSERT_OK(stack->write(0, std::string(8 * unit(), 'a')));
  ASSERT_OK(world.run(graph::take_snapshot(stack->node(), "s")));
  ASSERT_OK(stack->zero({unit() / 2, 6 * unit()}));
  fill();

  ASSERT_OK(stack->write(unit() / 2, std::string(6 * unit(), 'n')));

  EXPECT_EQ(
      stack->read({0, 7 * unit()}).value_or(""),
      std::string(unit() / 2, 'a') + std::string(6 * unit(), 'n') + std::string(unit() / 2, 'a'));
  disk.traits.capacity = std::uint64_t{1} << 40;
  ASSERT_OK(stack->apply("s"));
  EXPECT_EQ(stack->read({0, 8 * unit()}).value_or(""), std::string(8 * unit(), 'a'));
  expect_clean();
}

TEST_P(ReservedZeroes, TakeNoSpaceWhereTheyMayBeUnmapped) {
  graph::ZeroFlags flags;
  flags.may_unmap = true;
  ASSERT_OK(stack->zero({0, 90 * unit()}, flags));
  ASSERT_OK(stack->flush());
  EXPECT_LT(disk.allocated("disk"), 20 * unit());
  expect_clean();
}

TEST_P(ReservedZeroes, HaveAPlaceAndNoSpaceWhereThatIsEnough) {
  graph::ZeroFlags flags;
  flags.place_only = true;
  ASSERT_OK(stack->zero({0, 90 * unit()}, flags));
  ASSERT_OK(stack->flush());
  EXPECT_GT(disk.size("disk"), 90 * unit());
  EXPECT_LT(disk.allocated("disk"), 20 * unit());
  EXPECT_EQ(stack->read({0, 90 * unit()}).value_or(""), std::string(90 * unit(), '\0'));
  expect_clean();
}

TEST_P(ReservedZeroes, ThatDoNotFitAreRefusedAndLeakNothing) {
  ASSERT_OK(stack->write(0, "a"));
  fill();

  EXPECT_EQ(code_of(stack->zero({10 * unit(), 80 * unit()})), Errc::no_space);

  disk.traits.capacity = std::uint64_t{1} << 40;
  EXPECT_EQ(stack->read({0, 1}).value_or(""), "a");
  expect_clean();
}

}  // namespace
