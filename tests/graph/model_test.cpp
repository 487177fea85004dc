// Random operations through many views of one image, beside each other, on a disk with every vice,
// against a flat array of bytes. What operations that overlap each other leave behind is unknown;
// everything else must be right.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <list>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/byte_model.h"
#include "tests/support/image_stack.h"
#include "tests/support/seed.h"
#include "tests/support/world.h"

namespace {

using graph::BlockBackend;
using test::ShownView;

constexpr std::uint64_t start_size = 64 * KiB;  // of the image; fixed views end here
constexpr std::uint64_t end_max = 160 * KiB;
constexpr std::size_t length_max = 20'000;

using Model = test::ByteModel;

struct Variant {
  const char* name;
  test::Cached cached;
  std::uint32_t alignment;
  bool fails;
};

class Trial {
 public:
  Trial(std::uint64_t seed, const Variant& variant) : disk_(seed), world_(seed, disk_) {
    disk_.traits.direct_alignment = variant.alignment;
    disk_.traits.zeroes_ranges = chance(2);
    disk_.traits.punches_holes = !chance(4);
    disk_.traits.reads_now = !chance(4);
    disk_.traits.is_quick = !chance(4);
    disk_.make("disk", start_size);
    cached_ = variant.cached;
    stack_ = std::make_unique<test::ImageStack>(world_, cached_);
    disk_.chaos = {3, 10, 2};
    fails_ = variant.fails;
    if (fails_) {
      disk_.fail_some(sim::Call::read, 50, EIO);
      disk_.fail_some(sim::Call::write, 50, EIO);
      disk_.fail_some(sim::Call::fallocate, 20, EIO);
      disk_.fail_some(sim::Call::truncate, 20, EIO);
      disk_.traits.capacity = end_max - 16 * KiB;
    }
  }
  ~Trial() {
    disk_.fail_some(sim::Call::read, 0, 0);
    disk_.fail_some(sim::Call::write, 0, 0);
    stack_.reset();
  }

  void operations(unsigned count) {
    for (unsigned i = 0; i < count && !testing::Test::HasFailure(); ++i) {
      const std::size_t beside = 1 + draw(8);
      world_.scheduler.run_until([&] { return gate_.inside() < beside; });
      if (chance(200)) {
        resize();
      } else {
        spawn(world_.home.executor, gate_.enter_anyway(), operation());
      }
    }
    settle();
    check_all();
  }

 private:
  std::uint64_t draw(std::uint64_t n) { return world_.scheduler.choose(n); }
  bool chance(std::uint64_t one_in) { return world_.scheduler.one_in(one_in); }
  void settle() {
    world_.scheduler.run_until([&] { return gate_.inside() == 0; });
    EXPECT_TRUE(model_.idle());
  }
  ShownView& any_view() { return stack_->views[draw(stack_->views.size())]; }
  // Half of them near what others use, at odd places; half of them on round ones.
  Range any_range(std::uint64_t size) {
    if (size == 0) return {};
    std::uint64_t offset = draw(size);
    std::uint64_t length = 1 + (chance(2) ? draw(length_max) : draw(600));
    if (chance(3)) offset = align_down(offset, 512);
    if (chance(3)) length = align_up(length, 512);
    return {offset, std::min(length, size - offset)};
  }
  std::string any_data(std::size_t length) {
    std::string data(length, '\0');
    if (chance(8)) return data;
    std::uint64_t state = draw(1 << 30) | 1;
    for (char& byte : data) {
      state = state * 6364136223846793005 + 1442695040888963407;
      byte = static_cast<char>(state >> 56);
    }
    return data;
  }
  static Range in_file(const ShownView& shown, Range range) { return range.shifted(shown.start); }

  // An operation may fail only where the disk does, and says where.
  void expect_reason(const ShownView& shown, const char* what, Range range, const Error& error) {
    const bool allowed = error.code == Errc::io_error || error.code == Errc::no_space;
    EXPECT_TRUE(fails_ && allowed) << shown.name << ": " << what << " " << range.length << " at "
                                   << range.offset << ": " << error.message;
    EXPECT_TRUE(error.offset >= range.offset && error.offset < range.end())
        << shown.name << ": " << what << " " << range.length << " at " << range.offset
        << " fails at " << error.offset;
  }

  asio::awaitable<void> operation() {
    ShownView& shown = any_view();
    const std::uint64_t kind = draw(100);
    if (kind < 40 || (!shown.writes && kind < 85)) {
      co_await read(shown);
    } else if (kind < 70) {
      co_await write(shown);
    } else if (kind < 82) {
      co_await zero(shown);
    } else if (kind < 85) {
      co_await discard(shown);
    } else if (kind < 96) {
      co_await status(shown);
    } else if (kind < 98) {
      const Result<> done = co_await shown.view->flush();
      EXPECT_TRUE(done || fails_) << done.error().message;
    } else {
      const Range range = any_range(shown.view->size());
      if (!range.empty()) (void)co_await shown.view->prefetch(range);
    }
  }

  asio::awaitable<void> read(ShownView& shown) {
    const Range range = any_range(shown.view->size());
    if (range.empty()) co_return;
    std::string data(range.length, '?');
    Buffers list;
    split(std::as_writable_bytes(std::span(data)), list);
    const Model::Handle pending = model_.begin(in_file(shown, range), false);
    const Result<> done = co_await shown.view->read(range.offset, list);
    if (!done) {
      expect_reason(shown, "read", range, done.error());
      model_.end_unchanged(pending);
      co_return;
    }
    const auto wrong = model_.end_read(pending, data);
    EXPECT_FALSE(wrong) << shown.name << ": read " << range.length << " at " << range.offset
                        << " is wrong at byte " << wrong.value_or(0) << " of the file";
  }
  template <class Byte>
  void split(std::span<Byte> bytes, BufferList<Byte>& list) {
    while (bytes.size() > 1 && chance(2)) {
      const std::size_t n = 1 + draw(bytes.size() - 1);
      list.add(bytes.first(n));
      bytes = bytes.subspan(n);
    }
    list.add(bytes);
  }
  // Where a writer may write.
  Range any_target(const ShownView& shown) {
    const std::uint64_t size = shown.view->size();
    if (!shown.grows || !chance(3)) return any_range(size);
    Range range = any_range(size);
    range.offset = std::min(size + draw(3000) - std::min<std::uint64_t>(size, draw(3000)), end_max);
    range.length = std::min(range.length, end_max - range.offset);
    return range;
  }

  asio::awaitable<void> write(ShownView& shown) {
    const Range range = any_target(shown);
    if (range.empty()) co_return;
    const std::string data = any_data(range.length);
    ConstBuffers list;
    split(bytes_of(data), list);
    graph::WriteFlags flags;
    flags.fua = chance(10);
    const Model::Handle pending = model_.begin(in_file(shown, range), true);
    const Result<> done = co_await shown.view->write(range.offset, list, flags);
    if (!done) expect_reason_or_lost(shown, "write", range, done.error());
    model_.end_write(pending, done ? std::optional(data) : std::nullopt);
  }
  // A durable write that failed has failed the node: from then on others fail, too, at byte 0.
  void expect_reason_or_lost(const ShownView& shown, const char* what, Range range, Error error) {
    if (error.message.find("reopen") != std::string::npos) error.offset = range.offset;
    expect_reason(shown, what, range, error);
  }

  asio::awaitable<void> zero(ShownView& shown) {
    const Range range = any_target(shown);
    if (range.empty()) co_return;
    graph::ZeroFlags flags;
    flags.may_unmap = chance(2);
    flags.no_fallback = chance(4);
    const Model::Handle pending = model_.begin(in_file(shown, range), true);
    const Result<> done = co_await shown.view->write_zeroes(range, flags);
    if (!done && done.error().code == Errc::not_supported && flags.no_fallback) {
      model_.end_unchanged(pending);  // Z-5
      co_return;
    }
    if (!done) expect_reason_or_lost(shown, "zero", range, done.error());
    model_.end_write(pending, done ? std::optional(std::string(range.length, '\0')) : std::nullopt);
  }

  asio::awaitable<void> discard(ShownView& shown) {
    const Range range = any_range(shown.view->size());
    if (range.empty()) co_return;
    const Model::Handle pending = model_.begin(in_file(shown, range), true);
    const Result<> done = co_await shown.view->discard(range);
    if (!done) expect_reason_or_lost(shown, "discard", range, done.error());
    model_.end_write(pending, std::nullopt);
  }

  asio::awaitable<void> status(ShownView& shown) {
    const Range range = any_range(shown.view->size());
    if (range.empty()) co_return;
    const Model::Handle pending = model_.begin(in_file(shown, range), false);
    const auto found = co_await shown.view->block_status(range, graph::MapDepth::zeroes, 5);
    if (found) {
      std::uint64_t at = range.offset;
      for (const auto& extent : *found) {
        EXPECT_TRUE(extent.length > 0 && at + extent.length <= range.end());
        const auto wrong =
            extent.zero ? model_.first_not_zero(*pending, in_file(shown, {at, extent.length}))
                        : std::nullopt;
        EXPECT_FALSE(wrong) << shown.name << ": said to be zero, byte " << wrong.value_or(0);
        at += extent.length;
      }
    } else {
      expect_reason(shown, "status", range, found.error());
    }
    model_.end_unchanged(pending);
  }

  void resize() {
    settle();
    check_all();
    if (fails_ && !world_.run(stack_->views.front().view->flush())) return reopen();
    BlockBackend& growing = *stack_->views.front().view;
    const std::uint64_t size =
        chance(4) ? draw(fixed_end_) : fixed_end_ + draw(end_max - fixed_end_);
    const Result<> done = world_.run(growing.resize(size));
    if (size < fixed_end_) {
      ASSERT_FALSE(done);
      EXPECT_EQ(done.error().code, Errc::busy);
    } else if (done) {
      EXPECT_EQ(growing.size(), size);
      model_.resize(size);
    } else {
      EXPECT_TRUE(fails_) << done.error().message;
    }
  }
  // A durable write has failed, and so has the node, for good.
  void reopen() {
    BlockBackend& growing = *stack_->views.front().view;
    // who may not move an end writes without the page cache only where it is aligned (P-9)
    const std::uint64_t size = align_up(growing.size(), 4096);
    while (!world_.run(growing.resize(size))) {
    }
    model_.resize(size);
    stack_.reset();
    stack_ = std::make_unique<test::ImageStack>(world_, cached_);
    fixed_end_ = size;
  }
  // The file itself, and its size: nobody is at work.
  void check_all() {
    const std::vector<std::byte> content = disk_.content("disk");
    const std::uint64_t size = stack_->views.front().view->size();
    EXPECT_TRUE(fails_ ? content.size() >= size : content.size() == size)
        << content.size() << " bytes on the disk, " << size << " in the graph";
    std::string text(reinterpret_cast<const char*>(content.data()),
                     std::min<std::uint64_t>(content.size(), size));
    const auto wrong = model_.end_read(model_.begin({0, text.size()}, false), text);
    EXPECT_FALSE(wrong) << "the file is wrong at byte " << wrong.value_or(0);
  }

  sim::Disk disk_;
  sim::World world_;
  std::unique_ptr<test::ImageStack> stack_;
  Model model_{start_size};
  Gate gate_;
  test::Cached cached_ = test::Cached::yes;
  std::uint64_t fixed_end_ = start_size;  // where the fixed views end
  bool fails_ = false;
};

constexpr Variant variants[] = {
    {"cached", test::Cached::yes, 1, false},
    {"cached_failing", test::Cached::yes, 1, true},
    {"direct_512", test::Cached::no, 512, false},
    {"direct_512_failing", test::Cached::no, 512, true},
    {"direct_4096", test::Cached::no, 4096, false},
    {"direct_4096_failing", test::Cached::no, 4096, true},
};

class ImageModel : public testing::TestWithParam<Variant> {};
INSTANTIATE_TEST_SUITE_P(Disks, ImageModel, testing::ValuesIn(variants),
                         [](const auto& chosen) { return std::string(chosen.param.name); });

TEST_P(ImageModel, AgreesWithAnArrayOfBytes) {
  const std::uint64_t first = test::seed();
  for (std::uint64_t seed = first; seed < first + 10 && !HasFailure(); ++seed) {
    SCOPED_TRACE(test::repeat_with(seed));
    Trial trial(seed, GetParam());
    trial.operations(2000);
  }
}

}  // namespace
