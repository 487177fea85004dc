// Writing where the image contradicts itself, where it is full, and where its flags are too
// careful.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "formats/qcow2/layout.h"
#include "tests/support/graph_fixture.h"
#include "tests/support/qcow2_stack.h"

namespace {

using namespace formats::qcow2;
using test::Qcow2Stack;

std::uint64_t number_at(const std::vector<std::byte>& file, std::uint64_t at) {
  Be<std::uint64_t> number;
  std::memcpy(&number, file.data() + at, sizeof(number));
  return number;
}
void put_number(std::vector<std::byte>& file, std::uint64_t at, std::uint64_t number) {
  const Be<std::uint64_t> value = number;
  std::memcpy(file.data() + at, &value, sizeof(value));
}

class Qcow2Write : public testing::Test {
 protected:
  static constexpr std::uint64_t unit = 4096;
  Qcow2Write() {
    shape_.geometry.cluster_bits = 12;
    shape_.size = 64 * unit;
  }
  void make() { disk_.make("disk", test::empty_qcow2(shape_)); }
  void open() {
    stack_ = std::make_unique<Qcow2Stack>(world_, "disk");
    ASSERT_TRUE(stack_->opened()) << stack_->opened().error().message;
  }
  void close() {
    ASSERT_OK(stack_->close());
    stack_.reset();
  }
  void edit(std::uint64_t at, std::uint64_t number) {
    std::vector<std::byte> file = disk_.content("disk");
    put_number(file, at, number);
    disk_.make("disk", std::move(file));
  }
  std::uint64_t l1() const { return number_at(disk_.content("disk"), 40); }
  std::uint64_t l2() const { return number_at(disk_.content("disk"), l1()) & offset_mask; }

  test::Qcow2Shape shape_;
  sim::Disk disk_{1};
  sim::World world_{1, disk_};
  std::unique_ptr<Qcow2Stack> stack_;
};

TEST_F(Qcow2Write, QF10_NothingIsWrittenOverTheTablesThatAnEntryPointsTo) {
  for (const bool short_way : {false, true}) {
    for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{7}}) {
      SCOPED_TRACE(short_way);
      disk_.make("disk", test::empty_qcow2(shape_));
      open();
      ASSERT_OK(stack_->write(0, std::string(2 * unit, 'a')));
      close();
      const std::uint64_t table = l1();
      edit(l2(), table | copied_bit);
      const std::vector<std::byte> before = disk_.content("disk");
      open();
      if (short_way) {  // the table is in memory, and the image known to be written
        ASSERT_OK(stack_->write(unit, "b"));
      }

      const Result<> done = stack_->write(offset, "evil");

      EXPECT_EQ(test::code_of(done), Errc::corrupt);
      const std::vector<std::byte> after = disk_.content("disk");
      EXPECT_TRUE(std::equal(before.begin() + static_cast<std::ptrdiff_t>(table),
                             before.begin() + static_cast<std::ptrdiff_t>(table + unit),
                             after.begin() + static_cast<std::ptrdiff_t>(table)));
      EXPECT_EQ(test::code_of(stack_->write(unit, "more")), Errc::corrupt);
      EXPECT_NE(number_at(after, 72) & incompatible::corrupt, 0U);
      stack_.reset();
    }
  }
}

TEST_F(Qcow2Write, BeforeThereIsNoSpaceWhatWasFreedIsUsed) {
  test::Bench bench;
  const std::vector<std::byte> image = test::empty_qcow2(shape_);
  std::string bytes(reinterpret_cast<const char*>(image.data()), image.size());
  bytes.resize(bytes.size() + 20 * unit);
  test::Disk& full = bench.disk("full", bytes);
  full.grows = graph::Growth::never;
  graph::Node& node = bench.add("image", {{"driver", "qcow2"}, {"file", "full"}});
  test::View& view = bench.writer(node);
  std::uint64_t written = 0;
  for (;; ++written) {
    const Result<> done = bench.write(view, written * unit, std::string(unit, 'a'));
    if (done) continue;
    EXPECT_EQ(done.error().code, Errc::no_space) << done.error().message;
    break;
  }
  EXPECT_EQ(written, 19U);  // and a table

  EXPECT_OK(bench.discard(view, {0, 5 * unit}));
  for (std::uint64_t i = 0; i < 5; ++i) {
    EXPECT_OK(bench.write(view, (30 + i) * unit, std::string(unit, 'b')));
  }

  EXPECT_EQ(test::code_of(bench.write(view, 40 * unit, "c")), Errc::no_space);
  const auto found = bench.read(view, {5 * unit, 14 * unit});
  ASSERT_OK(found);
  EXPECT_EQ(*found, std::string(14 * unit, 'a'));
}

// QR-6: the file's own calls tell whether a cluster was used again too early.
class Qcow2Reuse : public testing::Test, protected test::Bench {
 protected:
  static constexpr std::uint64_t unit = 4096;
  Qcow2Reuse() {
    test::Qcow2Shape shape;
    shape.geometry.cluster_bits = 12;
    shape.size = 64 * unit;
    const std::vector<std::byte> image = test::empty_qcow2(shape);
    file_ = &disk("file", std::string(reinterpret_cast<const char*>(image.data()), image.size()));
    view_ = &writer(add("image", {{"driver", "qcow2"}, {"file", "file"}}));
    EXPECT_OK(write(*view_, 0, std::string(unit, 'a')));
    EXPECT_OK(flush(*view_));
    host_ = file_->content.find(std::string(unit, 'a'));
    file_->script.take();
  }
  std::string call(const char* what) const {
    return std::string(what) + " " + std::to_string(host_) + "+";
  }
  // The cluster goes, and others are wanted.
  void discard_and_allocate() {
    EXPECT_OK(discard(*view_, {0, unit}));
    EXPECT_OK(flush(*view_));
    settle();
    for (std::uint64_t i = 10; i < 14; ++i) {
      later_.push_back(start_write(*view_, i * unit, std::string(unit, 'c')));
    }
    settle();
  }
  void let_go() {
    file_->script.release();
    settle();
    for (const auto& each : later_) EXPECT_TRUE(each->succeeded());
    EXPECT_OK(flush(*view_));
    settle();
    const auto found = read(*view_, {10 * unit, 4 * unit});
    ASSERT_OK(found);
    EXPECT_EQ(*found, std::string(4 * unit, 'c'));
  }

  test::Disk* file_ = nullptr;
  test::View* view_ = nullptr;
  std::uint64_t host_ = 0;
  std::vector<std::shared_ptr<test::Started<>>> later_;
};

TEST_F(Qcow2Reuse, QR6_AClusterThatIsStillBeingWrittenIsNotUsedAgain) {
  file_->script.hold(call("write"));
  const auto slow = start_write(*view_, 0, std::string(unit, 'b'));
  settle();
  ASSERT_EQ(file_->script.waiting(), 1U);

  discard_and_allocate();

  EXPECT_EQ(file_->script.count(call("write")), 1U);
  EXPECT_EQ(file_->script.count(call("discard")), 0U);
  let_go();
  EXPECT_TRUE(slow->succeeded());
}

TEST_F(Qcow2Reuse, QR6_AClusterThatIsStillBeingReadIsNotUsedAgain) {
  file_->script.hold(call("read"));
  const auto slow = start_read(*view_, {0, unit});
  settle();
  ASSERT_EQ(file_->script.waiting(), 1U);

  discard_and_allocate();

  EXPECT_EQ(file_->script.count(call("write")), 0U);
  EXPECT_EQ(file_->script.count(call("discard")), 0U);
  let_go();
  EXPECT_TRUE(slow->succeeded());
}

TEST_F(Qcow2Reuse, QR6_AClusterWhosePunchIsUnderWayIsNotUsedAgain) {
  file_->script.hold(call("discard"));

  discard_and_allocate();

  EXPECT_EQ(file_->script.count(call("discard")), 1U);
  EXPECT_EQ(file_->script.count(call("write")), 0U);
  let_go();
}

TEST_F(Qcow2Reuse, QR6_AClusterIsNotUsedAgainBeforeItsLossIsDurable) {
  EXPECT_OK(discard(*view_, {0, unit}));
  EXPECT_OK(write(*view_, 10 * unit, std::string(unit, 'c')));
  EXPECT_EQ(file_->script.count(call("write")), 0U);
  EXPECT_OK(flush(*view_));
  settle();
  EXPECT_OK(write(*view_, 20 * unit, std::string(unit, 'd')));
  EXPECT_EQ(file_->script.count(call("write")), 1U);
}

// As a snapshot leaves it whose deletion the power cut short.
TEST_F(Qcow2Write, ATableThatIsCopiedWithoutNeedIsFreeAfterwards) {
  make();
  open();
  ASSERT_OK(stack_->write(0, std::string(8 * unit, 'a')));
  close();
  const std::uint64_t old_table = l2();
  edit(l1(), old_table);  // not COPIED
  open();

  ASSERT_OK(stack_->write(50 * unit, "b"));
  ASSERT_OK(stack_->flush());
  world_.scheduler.run();
  ASSERT_NE(l2(), old_table);
  for (std::uint64_t at = 8 * unit; at < 40 * unit; at += unit) {
    ASSERT_OK(stack_->write(at, std::string(unit, 'c')));
  }

  const auto found = stack_->read({0, 40 * unit});
  ASSERT_OK(found);
  EXPECT_EQ(*found, std::string(8 * unit, 'a') + std::string(32 * unit, 'c'));
  close();
  const test::Qcow2Audit audit = test::audit_qcow2(disk_.content("disk"));
  EXPECT_EQ(audit.leaked, 0U);
}

}  // namespace
