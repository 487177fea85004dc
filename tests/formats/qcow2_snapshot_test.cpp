// Internal snapshots: taken, shown beside the live disk, deleted, applied; the counts stay right.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "graph/bitmap_change.h"
#include "graph/snapshot_change.h"
#include "tests/support/graph_fixture.h"
#include "tests/support/qcow2_stack.h"
#include "tests/support/seed.h"

namespace {

using test::code_of;
using test::Qcow2Stack;
using testing::HasSubstr;

struct Shown {
  const char* name;
  std::uint32_t version;
  unsigned cluster_bits;
  unsigned refcount_order;
  bool extended;
  bool backing;
};
constexpr Shown shapes[] = {{"v3", 3, 12, 4, false, false},
                            {"v2_tiny", 2, 9, 4, false, true},
                            {"wide_counts", 3, 9, 6, false, false},
                            {"extended", 3, 14, 4, true, true}};

class Snapshots : public testing::TestWithParam<Shown> {
 protected:
  Snapshots() {
    const Shown& shown = GetParam();
    shape_.version = shown.version;
    shape_.geometry.cluster_bits = shown.cluster_bits;
    shape_.geometry.refcount_order = shown.refcount_order;
    shape_.geometry.extended_l2 = shown.extended;
    shape_.size = 40 * unit() + 700;
    if (shown.backing) {
      shape_.backing = "base";
      disk.make("base", std::vector<std::byte>(9 * unit(), std::byte{'b'}));
    }
    disk.make("disk", test::empty_qcow2(shape_));
    open();
  }

  std::uint64_t unit() const { return shape_.geometry.cluster_size(); }
  void open() {
    stack.reset();
    stack = std::make_unique<Qcow2Stack>(world, "disk");
    ASSERT_TRUE(stack->opened()) << stack->opened().error().message;
  }
  Result<graph::Port> take(std::string name) {
    return world.run(graph::take_snapshot(stack->node(), std::move(name)));
  }
  Result<graph::Port> remove(std::string name) {
    return world.run(graph::delete_snapshot(stack->node(), std::move(name)));
  }
  Result<std::unique_ptr<graph::BlockBackend>> show(std::string snapshot) {
    graph::ViewOptions options("export '" + snapshot + "'");
    options.port = std::move(snapshot);
    auto node = stack->graph().find("disk");
    return world.run(stack->graph().attach(std::move(node), std::move(options)));
  }
  std::string content(graph::BlockBackend& view) {
    std::string out(view.size(), '?');
    const Buffers list(std::as_writable_bytes(std::span(out)));
    const Result<> done = world.run(view.read(0, list));
    EXPECT_TRUE(done) << done.error().message;
    return out;
  }
  std::string content() { return content(stack->view()); }
  void change_at_random() {
    const std::uint64_t offset = draw(shape_.size - 3 * unit());
    const std::uint64_t length = 1 + draw(3 * unit());
    graph::ZeroFlags zeroes;
    zeroes.may_unmap = draw(2) == 0;
    graph::WriteFlags flags;
    flags.compressed = draw(4) == 0;
    switch (draw(6)) {
      case 0:
        EXPECT_OK(stack->zero({offset, length}, zeroes));
        break;
      case 1:
        EXPECT_OK(stack->discard({offset, length}));
        break;
      default:
        EXPECT_OK(
            stack->write(offset, std::string(length, static_cast<char>(1 + draw(255))), flags));
    }
  }
  std::uint64_t draw(std::uint64_t n) { return world.scheduler.choose(n); }
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
INSTANTIATE_TEST_SUITE_P(Images, Snapshots, testing::ValuesIn(shapes),
                         [](const auto& chosen) { return std::string(chosen.param.name); });

TEST_P(Snapshots, KeepWhatTheDiskWasWhenTheyWereTaken) {
  SCOPED_TRACE(test::repeat_with(seed));
  std::map<std::string, std::string> taken;
  for (int round = 0; round < 6; ++round) {
    for (int i = 0; i < 12; ++i) change_at_random();
    const std::string name = "s" + std::to_string(round);
    taken[name] = content();
    const auto port = take(name);
    ASSERT_OK(port);
    EXPECT_EQ(port->size, shape_.size);
    if (round == 3) open();
    if (round == 4) {
      ASSERT_OK(remove("s1"));
      taken.erase("s1");
    }
    for (int i = 0; i < 5; ++i) change_at_random();
    for (const auto& [snapshot, bytes] : taken) {
      auto view = show(snapshot);
      ASSERT_OK(view);
      EXPECT_EQ(content(**view), bytes) << snapshot;
      EXPECT_OK(world.run(stack->graph().detach(*std::move(view))));
    }
  }
  const std::string live = content();
  for (const auto& [snapshot, bytes] : taken) ASSERT_OK(remove(snapshot));
  EXPECT_EQ(content(), live);
  EXPECT_TRUE(stack->node().ports().empty());
  expect_clean();
}

TEST_P(Snapshots, AppliedTheyAreTheDiskAgain) {
  SCOPED_TRACE(test::repeat_with(seed));
  for (int i = 0; i < 15; ++i) change_at_random();
  const std::string before = content();
  ASSERT_OK(take("before"));
  for (int i = 0; i < 15; ++i) change_at_random();
  ASSERT_OK(take("after"));
  const std::string after = content();
  for (int i = 0; i < 5; ++i) change_at_random();

  EXPECT_EQ(code_of(world.run(graph::apply_snapshot(stack->node(), "before"))), Errc::busy);
  ASSERT_OK(world.run(graph::add_bitmap(stack->node(), "b", 512, {})));
  ASSERT_OK(stack->apply("before"));
  EXPECT_EQ(content(), before);
  const graph::DirtyBitmap& bitmap = *stack->node().bitmaps().find("b");
  EXPECT_EQ(bitmap.dirty_bytes_in({0, before.size()}), before.size());
  for (int i = 0; i < 5; ++i) change_at_random();
  ASSERT_OK(stack->apply("after"));
  EXPECT_EQ(content(), after);

  auto view = show("before");
  ASSERT_OK(view);
  EXPECT_EQ(content(**view), before);
  EXPECT_OK(world.run(stack->graph().detach(*std::move(view))));
  expect_clean();
}

TEST_P(Snapshots, InUseAreNotDeletedAndTheMessageSaysByWhom) {
  EXPECT_OK(stack->write(0, "live"));
  ASSERT_OK(take("monday"));
  auto view = show("monday");
  ASSERT_OK(view);

  const auto refused = remove("monday");
  EXPECT_EQ(code_of(refused), Errc::busy);
  EXPECT_THAT(test::message_of(refused), HasSubstr("in use by export 'monday'"));

  EXPECT_OK(world.run(stack->graph().detach(*std::move(view))));
  EXPECT_OK(remove("monday"));
  expect_clean();
}

TEST_P(Snapshots, AreFoundByIdAndByName) {
  ASSERT_OK(take("a"));
  ASSERT_OK(take("b"));
  EXPECT_EQ(code_of(take("a")), Errc::invalid_argument);
  EXPECT_EQ(code_of(take("")), Errc::invalid_argument);
  const std::vector<graph::Port> there = stack->node().ports();
  const auto removed = remove("1");
  ASSERT_OK(removed);
  EXPECT_EQ(removed->name, "a");
  EXPECT_GT(removed->taken.count(), 0);
  EXPECT_EQ(removed->taken, there[0].taken);
  EXPECT_OK(remove("b"));
  EXPECT_EQ(code_of(remove("b")), Errc::invalid_argument);
  EXPECT_EQ(code_of(show("b")), Errc::invalid_argument);
  expect_clean();
}

TEST_P(Snapshots, OfAReadOnlyImageStayAsTheyAre) {
  ASSERT_OK(take("a"));
  ASSERT_OK(stack->close());
  const std::vector<std::byte> before = disk.content("disk");
  stack = std::make_unique<Qcow2Stack>(world, "disk", Qcow2Stack::Mode::read_only);
  ASSERT_OK(stack->opened());

  EXPECT_EQ(code_of(take("b")), Errc::read_only);
  EXPECT_EQ(code_of(remove("a")), Errc::read_only);
  ASSERT_OK(stack->close());
  EXPECT_EQ(disk.content("disk"), before);
}

}  // namespace
