// What is recorded of requests, and changes of bitmaps beside them.
#include "graph/bitmap_change.h"

#include <algorithm>
#include <string>
#include <vector>

#include "tests/support/graph_fixture.h"
#include "tests/support/seed.h"

namespace {

using graph::BitmapTraits;
using graph::DirtyBitmap;
using test::code_of;
using test::message_of;
using testing::ElementsAre;

class BitmapTest : public test::GraphTest {
 protected:
  DirtyBitmap& add(graph::Node& node, const std::string& name = "b", BitmapTraits traits = {}) {
    const auto added = run(add_bitmap(node, name, 512, traits));
    EXPECT_OK(added);
    return **added;
  }
  // The numbers of the dirty granules.
  static std::vector<std::uint64_t> dirty(const DirtyBitmap& bitmap) {
    std::vector<std::uint64_t> found;
    for (std::uint64_t at = 0; at < bitmap.size(); at += bitmap.granularity()) {
      if (bitmap.dirty_bytes_in({at, 1}) > 0) found.push_back(at / bitmap.granularity());
    }
    return found;
  }
};

TEST_F(BitmapTest, RecordsWhatChangesTheNode) {
  test::Disk& disk = this->disk("d", 8192);
  test::View& view = writer(disk);
  DirtyBitmap& bitmap = add(disk);

  EXPECT_OK(write(view, 600, "x"));
  EXPECT_OK(zero(view, {2048, 512}));
  EXPECT_OK(discard(view, {4096, 512}));
  EXPECT_OK(read(view, {7000, 10}));

  EXPECT_THAT(dirty(bitmap), ElementsAre(1, 4, 8));
}

TEST_F(BitmapTest, RecordsAtEachNodeWhatComesThere) {
  test::Disk& disk = this->disk("d", 8192);
  test::Pass& filter = this->filter("f", disk);
  test::View& above = writer(filter, "export 'a'");
  test::View& below = writer(disk, "export 'b'");
  DirtyBitmap& on_filter = add(filter);
  DirtyBitmap& on_disk = add(disk);

  EXPECT_OK(write(above, 0, "x"));
  EXPECT_OK(write(below, 1024, "x"));

  EXPECT_THAT(dirty(on_filter), ElementsAre(0));
  EXPECT_THAT(dirty(on_disk), ElementsAre(0, 2));
}

TEST_F(BitmapTest, RecordsWhatFailedPartWay) {
  test::Disk& disk = this->disk("d", 8192);
  disk.wants.max_transfer = 512;
  refresh();
  test::View& view = writer(disk);
  DirtyBitmap& bitmap = add(disk);
  disk.script.fail("write 512", Errc::io_error);

  EXPECT_EQ(code_of(write(view, 0, std::string(1024, 'x'))), Errc::io_error);

  EXPECT_EQ(disk.content[0], 'x');
  EXPECT_THAT(dirty(bitmap), ElementsAre(0, 1));
}

TEST_F(BitmapTest, HasRecordedAWriteWhenItIsAnswered) {
  test::Disk& disk = this->disk("d", 8192);
  test::View& view = writer(disk);
  DirtyBitmap& bitmap = add(disk);
  disk.script.hold("write");

  const auto pending = start_write(view, 0, "x");
  settle();
  EXPECT_THAT(dirty(bitmap), ElementsAre());
  disk.script.release();
  settle();

  EXPECT_TRUE(pending->succeeded());
  EXPECT_THAT(dirty(bitmap), ElementsAre(0));
}

// Whoever takes the dirty parts and clears the bitmap must hear of the write again.
TEST_F(BitmapTest, AClearDoesNotForgetAWriteOnItsWay) {
  test::Disk& disk = this->disk("d", 8192);
  test::View& view = writer(disk);
  DirtyBitmap& bitmap = add(disk);
  disk.script.hold("write");
  const auto pending = start_write(view, 0, "x");
  settle();

  EXPECT_OK(clear_bitmap(disk, "b"));
  disk.script.release();
  settle();

  EXPECT_THAT(dirty(bitmap), ElementsAre(0));
}

// Nothing recorded the write when it set out.
TEST_F(BitmapTest, ANewBitmapWaitsForWritesOnTheirWay) {
  test::Disk& disk = this->disk("d", 8192);
  test::View& view = writer(disk);
  disk.script.hold("write");
  const auto pending = start_write(view, 0, "x");
  settle();

  const auto added = start(add_bitmap(disk, "b", 512, {}));
  settle();
  EXPECT_FALSE(added->done());
  disk.script.release();
  settle();

  EXPECT_TRUE(added->succeeded());
  EXPECT_TRUE(pending->succeeded());
  EXPECT_OK(write(view, 512, "x"));
  EXPECT_THAT(dirty(*disk.bitmaps().find("b")), ElementsAre(1));
}

TEST_F(BitmapTest, OneThatIsEnabledWaitsForWritesOnTheirWay) {
  test::Disk& disk = this->disk("d", 8192);
  test::View& view = writer(disk);
  BitmapTraits off;
  off.enabled = false;
  DirtyBitmap& bitmap = add(disk, "b", off);
  disk.script.hold("write");
  const auto pending = start_write(view, 0, "x");
  settle();

  const auto enabled = start(enable_bitmap(disk, "b"));
  settle();
  EXPECT_FALSE(enabled->done());
  disk.script.release();
  settle();

  EXPECT_TRUE(enabled->succeeded());
  EXPECT_OK(write(view, 512, "x"));
  EXPECT_THAT(dirty(bitmap), ElementsAre(1));
}

TEST_F(BitmapTest, OneThatIsDisabledRecordsNothing) {
  test::Disk& disk = this->disk("d", 8192);
  test::View& view = writer(disk);
  DirtyBitmap& bitmap = add(disk);
  DirtyBitmap& other = add(disk, "other");

  EXPECT_OK(disable_bitmap(disk, "b"));
  EXPECT_TRUE(disk.bitmaps().recording());
  EXPECT_OK(write(view, 0, "x"));

  EXPECT_THAT(dirty(bitmap), ElementsAre());
  EXPECT_THAT(dirty(other), ElementsAre(0));
  EXPECT_OK(run(remove_bitmap(disk, "other")));
  EXPECT_FALSE(disk.bitmaps().recording());
}

TEST_F(BitmapTest, FollowsTheSizeOfItsNode) {
  test::Disk& disk = this->disk("d", 1024);
  test::View& view = grower(disk);
  DirtyBitmap& bitmap = add(disk);

  EXPECT_OK(run(view.resize(4096)));
  EXPECT_EQ(bitmap.size(), 4096U);
  EXPECT_THAT(dirty(bitmap), ElementsAre());
  EXPECT_OK(write(view, 5000, "x"));
  EXPECT_EQ(bitmap.size(), 5001U);
  EXPECT_THAT(dirty(bitmap), ElementsAre(9));
  EXPECT_OK(run(view.resize(512)));
  EXPECT_THAT(dirty(bitmap), ElementsAre());
}

TEST_F(BitmapTest, RulesAreThoseOfQemu) {
  test::Disk& disk = this->disk("d", 8192);
  DirtyBitmap& bitmap = add(disk);
  BitmapTraits persistent;
  persistent.persistent = true;
  BitmapTraits inconsistent;
  inconsistent.inconsistent = true;
  BitmapTraits frozen;
  frozen.read_only = true;
  add(disk, "bad", inconsistent);
  add(disk, "ro", frozen);

  EXPECT_EQ(message_of(run(add_bitmap(disk, "b", 512, {}))), "Bitmap already exists: b");
  EXPECT_EQ(message_of(run(add_bitmap(disk, "p", 512, persistent))),
            "Can't store persistent bitmaps to d: Operation not supported");
  EXPECT_EQ(message_of(clear_bitmap(disk, "zz")), "Dirty bitmap 'zz' not found");
  EXPECT_EQ(message_of(clear_bitmap(disk, "ro")), "Bitmap 'ro' is readonly and cannot be modified");
  EXPECT_EQ(message_of(run(remove_bitmap(disk, "ro"))),
            "Bitmap 'ro' is readonly and cannot be modified");
  EXPECT_EQ(message_of(run(enable_bitmap(disk, "bad"))),
            "Bitmap 'bad' is inconsistent and cannot be used");
  EXPECT_OK(run(remove_bitmap(disk, "bad")));
  bitmap.begin_use();
  const std::string busy = "Bitmap 'b' is currently in use by another operation and cannot be used";
  EXPECT_EQ(message_of(disable_bitmap(disk, "b")), busy);
  EXPECT_EQ(message_of(run(remove_bitmap(disk, "b"))), busy);
  bitmap.end_use();
  EXPECT_OK(run(remove_bitmap(disk, "b")));
  EXPECT_EQ(disk.bitmaps().find("b"), nullptr);
}

// A client that backs up what is dirty, again and again, beside writers that fail, split and
// overlap: at the end its copy is the disk.
class Backup {
 public:
  explicit Backup(std::uint64_t seed) : bench_(seed), disk_(bench_.disk("d", size)) {
    disk_.script.dawdle(bench_.world.scheduler, 4);
    disk_.wants.request_alignment = bench_.world.scheduler.one_in(2) ? 1 : 64;
    disk_.wants.max_transfer = 1024;
    disk_.wants.native_zeroes = true;
    bench_.refresh();
    test::Pass& filter = bench_.filter("f", disk_);
    writers_ = {&bench_.writer(disk_, "export 'a'"), &bench_.writer(filter, "export 'b'")};
    reader_ = &bench_.reader(disk_);
  }

  void run() {
    for (int i = 0; i < 4; ++i) start(write(40));
    start(back_up());
    bench_.world.scheduler.run_until([&] { return gate_.inside() == 0; });
    EXPECT_EQ(gate_.inside(), 0U);
    start(take_dirty());  // what was written since the last round
    bench_.world.scheduler.run_until([&] { return gate_.inside() == 0; });
    EXPECT_TRUE(copy_ == disk_.content);
    EXPECT_GT(rounds_, 3);
  }

 private:
  static constexpr std::uint64_t size = 16 * KiB;

  void start(asio::awaitable<void> root) {
    spawn(bench_.world.home.executor, gate_.enter_anyway(), std::move(root));
  }
  std::uint64_t draw(std::uint64_t n) { return bench_.world.scheduler.choose(n); }

  asio::awaitable<void> write(int count) {
    for (int i = 0; i < count; ++i) {
      test::View& view = *writers_[draw(2)];
      const std::uint64_t offset = draw(size);
      const Range range{offset, 1 + draw(std::min<std::uint64_t>(size - offset, 3000))};
      if (draw(6) == 0) disk_.script.fail(draw(2) == 0 ? "write" : "zeroes", Errc::io_error, 2);
      const std::uint64_t kind = draw(4);
      if (kind == 0) {
        (void)co_await view.discard(range);
      } else if (kind == 1) {
        (void)co_await view.write_zeroes(range);
      } else {
        const std::string data(range.length, static_cast<char>('a' + draw(26)));
        const ConstBuffers list(bytes_of(data));
        (void)co_await view.write(range.offset, list);
      }
    }
  }

  // The first copy is whole, of the moment in which the bitmap began or later.
  asio::awaitable<void> back_up() {
    co_await bench_.world.clock.timer(Clock::Duration(draw(5)))->wait();
    const auto added = co_await graph::add_bitmap(disk_, "b", 512, {});
    EXPECT_OK(added);
    co_await copy({0, size});
    for (; rounds_ < 20; ++rounds_) {
      co_await take_dirty();
      if (draw(3) == 0) co_await bench_.world.clock.timer(Clock::Duration(draw(5)))->wait();
    }
  }
  asio::awaitable<void> take_dirty() {
    const auto dirty = disk_.bitmaps().find("b")->extents({0, size}, 1000);
    EXPECT_OK(clear_bitmap(disk_, "b"));
    std::uint64_t at = 0;
    for (const auto& extent : dirty) {
      if (extent.dirty) co_await copy({at, extent.length});
      at += extent.length;
    }
  }
  asio::awaitable<void> copy(Range range) {
    std::string data(range.length, '?');
    const Buffers list(std::as_writable_bytes(std::span(data)));
    EXPECT_OK(co_await reader_->read(range.offset, list));
    copy_.replace(range.offset, range.length, data);
  }

  test::Bench bench_;
  test::Disk& disk_;
  std::vector<test::View*> writers_;
  test::View* reader_ = nullptr;
  std::string copy_ = std::string(size, '?');
  int rounds_ = 0;
  Gate gate_;
};

TEST(BitmapUnderLoad, MissesNoByteThatChanges) {
  const std::uint64_t first = test::seed();
  for (std::uint64_t seed = first; seed < first + 100 && !HasFailure(); ++seed) {
    SCOPED_TRACE(test::repeat_with(seed));
    Backup(seed).run();
  }
}

}  // namespace
