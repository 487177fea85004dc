// Random operations beside each other on a chain of images, on a disk with every vice, against an
// array of bytes; then a clean close, after which nothing is wrong with the image and nothing is
// leaked, and it says the same when it is opened again.
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>

#include "tests/support/byte_model.h"
#include "tests/support/qcow2_chain.h"
#include "tests/support/seed.h"

namespace {

using test::ByteModel;
using test::ChainShape;
using test::DataFile;
using test::Qcow2Stack;

struct Variant {
  const char* name;
  std::uint32_t version;
  unsigned cluster_bits;
  unsigned refcount_order;
  bool extended;
  bool layers;
  DataFile data = DataFile::none;
  Qcow2Stack::Caching caching = Qcow2Stack::Caching::buffered;
  bool lazy = false;
};
constexpr Variant variants[] = {
    {"tiny", 3, 9, 4, false, true},
    {"tiny_wide", 3, 9, 6, false, true},
    {"tiny_bytes", 3, 9, 3, false, false},
    {"tiny_bits", 3, 9, 0, false, true},
    {"v2", 2, 9, 4, false, false},
    {"v2_overlay", 2, 10, 4, false, true},
    {"middling", 3, 12, 4, false, true},
    {"direct", 3, 12, 4, false, true, DataFile::none, Qcow2Stack::Caching::direct},
    {"extended", 3, 14, 4, true, true},
    {"extended_alone", 3, 14, 1, true, false},
    {"external", 3, 10, 4, false, true, DataFile::external},
    {"external_extended", 3, 14, 4, true, false, DataFile::external},
    {"external_raw", 3, 10, 4, false, false, DataFile::raw},
    {"lazy", 3, 10, 4, false, true, DataFile::none, Qcow2Stack::Caching::buffered, true},
};

ChainShape shape_of(const Variant& variant) {
  ChainShape shape;
  shape.version = variant.version;
  shape.geometry.cluster_bits = variant.cluster_bits;
  shape.geometry.refcount_order = variant.refcount_order;
  shape.geometry.extended_l2 = variant.extended;
  shape.layers = variant.layers;
  shape.data = variant.data;
  shape.lazy = variant.lazy;
  // many tables where they are small
  shape.clusters = variant.cluster_bits == 9 ? 700 : variant.cluster_bits < 12 ? 300 : 40;
  return shape;
}

class Trial {
 public:
  Trial(std::uint64_t seed, const Variant& variant)
      : variant_(variant),
        disk_(seed),
        world_(seed, disk_),
        chain_(disk_, world_, shape_of(variant)),
        model_(chain_.content()) {
    disk_.traits.zeroes_ranges = chance(2);
    disk_.traits.whole_sectors = true;
    disk_.traits.is_quick = !chance(3);
    disk_.chaos = {4, 20, 2};
    open(world_, Qcow2Stack::Mode::writable);
  }

  void run(int operations) {
    ASSERT_TRUE(stack_->opened()) << stack_->opened().error().message;
    for (int i = 0; i < operations && !testing::Test::HasFailure(); ++i) {
      const std::size_t beside = 1 + draw(8);
      world_.scheduler.run_until([&] { return gate_.inside() < beside; });
      spawn(world_.home.executor, gate_.enter_anyway(), operation());
    }
    world_.scheduler.run_until([&] { return gate_.inside() == 0; });
    ASSERT_TRUE(model_.idle());
    compare();
    const Result<> closed = stack_->close();
    ASSERT_TRUE(closed) << closed.error().message;
    const test::Qcow2Audit audit = test::audit_qcow2(disk_.content("top"));
    ASSERT_TRUE(audit.errors.empty()) << audit.errors.front();
    ASSERT_EQ(audit.leaked, 0U);
    if (variant_.data == DataFile::raw) compare_raw();

    stack_.reset();
    sim::World other(1, disk_);
    open(other, Qcow2Stack::Mode::read_only);
    ASSERT_TRUE(stack_->opened()) << stack_->opened().error().message;
    compare();
    stack_.reset();
  }

 private:
  std::uint64_t draw(std::uint64_t n) { return world_.scheduler.choose(n); }
  bool chance(std::uint64_t one_in) { return world_.scheduler.one_in(one_in); }

  void open(sim::World& world, Qcow2Stack::Mode mode) {
    stack_ = std::make_unique<Qcow2Stack>(world, "top", mode, variant_.caching, chain_.keys());
  }

  Range any_range() {
    const std::uint64_t unit = std::uint64_t{1} << variant_.cluster_bits;
    const std::uint64_t part = variant_.extended ? unit / 32 : 512;
    Range range{chain_.any_offset(world_.scheduler),
                1 + (chance(3) ? draw(4 * unit) : draw(unit / 2))};
    if (chance(2)) range = {align_down(range.offset, part), align_up(range.length, part)};
    if (chance(3)) range = {align_down(range.offset, unit), (1 + draw(3)) * unit};
    range.length = std::min(range.length, chain_.size() - range.offset);
    return range;
  }
  std::string any_data(std::size_t length) {
    if (chance(8)) return std::string(length, '\0');
    if (chance(3)) return std::string(length, static_cast<char>(draw(256)));
    return test::bytes_from(draw(1 << 30), length);
  }

  asio::awaitable<void> operation() {
    const std::uint64_t kind = draw(100);
    const Range range = any_range();
    if (kind < 30) {
      co_await read(range);
    } else if (kind < 60) {
      co_await write(range);
    } else if (kind < 75) {
      co_await zero(range);
    } else if (kind < 85) {
      co_await discard(range);
    } else if (kind < 95) {
      co_await status(range);
    } else {
      const Result<> done = co_await stack_->view().flush();
      EXPECT_TRUE(done) << done.error().message;
    }
  }

  void expect_done(const Result<>& done, const char* what, Range range) {
    EXPECT_TRUE(done) << what << " " << range.length << " at " << range.offset << ": "
                      << done.error().message;
  }

  asio::awaitable<void> read(Range range) {
    std::string data(range.length, '?');
    Buffers list;
    list.add(std::as_writable_bytes(std::span(data)));
    const ByteModel::Handle pending = model_.begin(range, false);
    const Result<> done = co_await stack_->view().read(range.offset, list);
    expect_done(done, "read", range);
    const auto wrong = model_.end_read(pending, data);
    EXPECT_FALSE(wrong) << "read " << range.length << " at " << range.offset << " is wrong at byte "
                        << wrong.value_or(0);
  }

  asio::awaitable<void> write(Range range) {
    const std::string data = any_data(range.length);
    const ConstBuffers list(bytes_of(data));
    graph::WriteFlags flags;
    flags.fua = chance(10);
    flags.compressed = chance(4);
    const ByteModel::Handle pending = model_.begin(range, true);
    const Result<> done = co_await stack_->view().write(range.offset, list, flags);
    expect_done(done, "write", range);
    model_.end_write(pending, data);
  }

  asio::awaitable<void> zero(Range range) {
    graph::ZeroFlags flags;
    flags.may_unmap = chance(2);
    flags.no_fallback = chance(4);
    flags.fua = chance(10);
    const ByteModel::Handle pending = model_.begin(range, true);
    const Result<> done = co_await stack_->view().write_zeroes(range, flags);
    if (!done && done.error().code == Errc::not_supported && flags.no_fallback) {
      model_.end_unchanged(pending);  // Z-5
      co_return;
    }
    expect_done(done, "zero", range);
    model_.end_write(pending, std::string(range.length, '\0'));
  }

  asio::awaitable<void> discard(Range range) {
    graph::WriteFlags flags;
    flags.fua = chance(10);
    const ByteModel::Handle pending = model_.begin(range, true);
    const Result<> done = co_await stack_->view().discard(range, flags);
    expect_done(done, "discard", range);
    model_.end_discard(pending);
  }

  asio::awaitable<void> status(Range range) {
    const ByteModel::Handle pending = model_.begin(range, false);
    const auto found = co_await stack_->view().block_status(range, graph::MapDepth::zeroes,
                                                            static_cast<std::size_t>(1 + draw(20)));
    EXPECT_TRUE(found) << found.error().message;
    std::uint64_t at = range.offset;
    for (const auto& extent : found ? *found : graph::StatusExtents()) {
      EXPECT_TRUE(extent.length > 0 && at + extent.length <= range.end());
      const auto wrong =
          extent.zero ? model_.first_not_zero(*pending, {at, extent.length}) : std::nullopt;
      EXPECT_FALSE(wrong) << "said to be zero, byte " << wrong.value_or(0);
      EXPECT_TRUE(extent.data || extent.zero) << "a hole that reads as something, at " << at;
      at += extent.length;
    }
    model_.end_unchanged(pending);
  }

  void compare() {
    const Range all{0, chain_.size()};
    const Result<std::string> content = stack_->read(all);
    ASSERT_TRUE(content) << content.error().message;
    const auto wrong = model_.end_read(model_.begin(all, false), *content);
    ASSERT_FALSE(wrong) << "byte " << wrong.value_or(0) << " is wrong";
  }
  // It can be read without the image.
  void compare_raw() {
    const std::vector<std::byte> bytes = disk_.content("data");
    ASSERT_GE(bytes.size(), chain_.size());
    const std::string text(reinterpret_cast<const char*>(bytes.data()), chain_.size());
    const auto wrong = model_.end_read(model_.begin({0, text.size()}, false), text);
    ASSERT_FALSE(wrong) << "byte " << wrong.value_or(0) << " of the data file is wrong";
  }

  const Variant& variant_;
  sim::Disk disk_;
  sim::World world_;
  test::Qcow2Chain chain_;
  ByteModel model_;
  std::unique_ptr<Qcow2Stack> stack_;
  Gate gate_;
};

class Qcow2Model : public testing::TestWithParam<Variant> {};
INSTANTIATE_TEST_SUITE_P(Images, Qcow2Model, testing::ValuesIn(variants),
                         [](const auto& chosen) { return std::string(chosen.param.name); });

TEST_P(Qcow2Model, AgreesWithAnArrayOfBytes) {
  const std::uint64_t first = test::seed();
  for (std::uint64_t seed = first; seed < first + 8 && !HasFailure(); ++seed) {
    SCOPED_TRACE(test::repeat_with(seed));
    Trial trial(seed, GetParam());
    trial.run(800);
  }
}

}  // namespace
