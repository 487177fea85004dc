// Slices of tables in memory: read once, forgotten when room is needed, written as they were when
// the flush began.
#include <algorithm>
#include <string>

#include "formats/qcow2/table_cache.h"
#include "tests/support/graph_fixture.h"

namespace {

using formats::qcow2::TableCache;
using graph::DebugEvent;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::size_t slice_size = 512;
constexpr std::size_t slices = 32;

class TableCacheTest : public testing::Test, protected test::Bench {
 protected:
  TableCacheTest()
      : disk_(disk("disk", content())),
        table_(format("table", disk_, 0)),
        cache_(table_.file(), slice_size, 4 * slice_size, DebugEvent::l2_load,
               DebugEvent::l2_update) {
    grower(table_);
    disk_.script.take();
  }
  static std::string content() {
    std::string all;
    for (std::size_t i = 0; i < slices; ++i) {
      all += std::string(slice_size, static_cast<char>('a' + i % 26));
    }
    return all;
  }
  static std::uint64_t at(std::size_t number) { return number * slice_size; }
  TableCache::Ref get(std::size_t number) {
    auto slice = run(cache_.get(at(number)));
    EXPECT_OK(slice);
    return slice ? *slice : nullptr;
  }
  char first(const TableCache::Ref& slice) const {
    return std::to_integer<char>(slice->bytes().front());
  }
  void put(std::size_t number, char byte) {
    const TableCache::Ref slice = get(number);
    std::ranges::fill(cache_.change(*slice), static_cast<std::byte>(byte));
  }
  char on_disk(std::size_t number) const { return disk_.content[at(number)]; }
  std::size_t reads() const { return disk_.script.count("read"); }

  test::Disk& disk_;
  test::Table& table_;
  TableCache cache_;
};

TEST_F(TableCacheTest, ASliceIsReadOnce) {
  EXPECT_EQ(first(get(3)), 'd');
  EXPECT_EQ(first(get(3)), 'd');
  EXPECT_THAT(disk_.script.take(), ElementsAre("read 1536+512"));
}

TEST_F(TableCacheTest, ManyWhoWantOneSliceShareARead) {
  disk_.script.hold("read");
  const auto one = start(cache_.get(at(3)));
  const auto two = start(cache_.get(at(3)));
  const auto other = start(cache_.get(at(4)));
  settle();
  EXPECT_EQ(cache_.find(at(3)), nullptr);
  EXPECT_EQ(disk_.script.waiting(), 2U);

  disk_.script.release();
  settle();

  ASSERT_TRUE(one->succeeded() && two->succeeded() && other->succeeded());
  EXPECT_EQ(one->result->value(), two->result->value());
  EXPECT_EQ(reads(), 2U);
}

TEST_F(TableCacheTest, WhoWaitedForAReadThatFailedTriesAgain) {
  disk_.script.hold("read");
  disk_.script.fail("read", Errc::io_error);
  const auto one = start(cache_.get(at(3)));
  const auto two = start(cache_.get(at(3)));
  settle();

  disk_.script.release();
  settle();

  EXPECT_NE(one->succeeded(), two->succeeded());
  EXPECT_EQ(reads(), 2U);
  EXPECT_EQ(first(get(3)), 'd');
}

TEST_F(TableCacheTest, NothingIsKeptOfAReadThatFailed) {
  disk_.script.fail("read", Errc::io_error);
  EXPECT_EQ(test::code_of(run(cache_.get(at(3)))), Errc::io_error);
  EXPECT_EQ(cache_.bytes(), 0U);
  EXPECT_EQ(first(get(3)), 'd');
}

TEST_F(TableCacheTest, BehindTheEndOfTheFileAreZeroes) {
  disk_.content.resize(at(3) + 100);
  graph.find("disk")->refresh_size();
  const TableCache::Ref cut = get(3);
  EXPECT_EQ(first(cut), 'd');
  EXPECT_EQ(cut->bytes()[100], std::byte{0});
  EXPECT_EQ(first(get(5)), '\0');
}

TEST_F(TableCacheTest, WhatNobodyUsesMakesRoom) {
  for (std::size_t i = 0; i < 8; ++i) (void)get(i);
  EXPECT_EQ(cache_.bytes(), 4 * slice_size);
  EXPECT_EQ(reads(), 8U);
}

TEST_F(TableCacheTest, WhatIsUsedStays) {
  (void)get(0);
  for (std::size_t i = 1; i < 16; ++i) {
    (void)get(0);
    (void)get(i);
  }
  EXPECT_NE(cache_.find(at(0)), nullptr);
  EXPECT_LE(disk_.script.count("read 0+"), 2U);  // the hand passes all of them once at first
}

TEST_F(TableCacheTest, WhatIsHeldStaysAndIsTheSame) {
  const TableCache::Ref held = get(0);
  for (std::size_t i = 1; i < 16; ++i) (void)get(i);
  EXPECT_EQ(get(0), held);
}

TEST_F(TableCacheTest, WhatIsChangedStaysUntilItIsWritten) {
  put(0, 'X');
  for (std::size_t i = 1; i < 16; ++i) (void)get(i);
  EXPECT_EQ(first(get(0)), 'X');
  EXPECT_EQ(on_disk(0), 'a');
  EXPECT_TRUE(cache_.dirty());

  EXPECT_TRUE(cache_.freeze());
  EXPECT_OK(run(cache_.write_frozen()));

  EXPECT_FALSE(cache_.dirty());
  EXPECT_EQ(on_disk(0), 'X');
  for (std::size_t i = 1; i < 16; ++i) (void)get(i);
  EXPECT_EQ(cache_.find(at(0)), nullptr);
  EXPECT_EQ(first(get(0)), 'X');
}

TEST_F(TableCacheTest, WhatIsFrozenIsWrittenAsItWasThen) {
  put(0, 'X');
  cache_.freeze();
  put(0, 'Y');
  EXPECT_OK(run(cache_.write_frozen()));
  EXPECT_EQ(on_disk(0), 'X');
  EXPECT_EQ(first(get(0)), 'Y');
  EXPECT_TRUE(cache_.dirty());

  cache_.freeze();
  EXPECT_OK(run(cache_.write_frozen()));
  EXPECT_EQ(on_disk(0), 'Y');
  EXPECT_FALSE(cache_.dirty());
}

TEST_F(TableCacheTest, AChangeWhileItIsBeingWrittenWaitsForTheNext) {
  put(0, 'X');
  cache_.freeze();
  disk_.script.hold("write");
  const auto writing = start(cache_.write_frozen());
  settle();
  put(0, 'Y');
  put(1, 'Z');
  disk_.script.release();
  settle();

  EXPECT_TRUE(writing->succeeded());
  EXPECT_EQ(on_disk(0), 'X');
  EXPECT_EQ(on_disk(1), 'b');
  EXPECT_EQ(first(get(0)), 'Y');
  cache_.freeze();
  EXPECT_OK(run(cache_.write_frozen()));
  EXPECT_EQ(on_disk(0), 'Y');
  EXPECT_EQ(on_disk(1), 'Z');
}

TEST_F(TableCacheTest, AFreezeThatWasNotWrittenIsTakenOverWithWhatIsThereNow) {
  put(0, 'X');
  cache_.freeze();
  put(0, 'Y');
  cache_.freeze();
  EXPECT_OK(run(cache_.write_frozen()));
  EXPECT_EQ(on_disk(0), 'Y');
  EXPECT_FALSE(cache_.dirty());
}

TEST_F(TableCacheTest, NeighboursAreOneWrite) {
  for (const std::size_t i : {3U, 1U, 2U, 7U}) put(i, 'X');
  disk_.script.take();
  cache_.freeze();
  EXPECT_OK(run(cache_.write_frozen()));
  EXPECT_THAT(disk_.script.take(), ElementsAre("write 512+1536", "write 3584+512"));
}

TEST_F(TableCacheTest, AfterAFailureTheRestIsWrittenAndTheNextTryWritesWhatIsLeft) {
  put(0, 'X');
  put(2, 'Y');
  cache_.freeze();
  disk_.script.fail("write 0+", Errc::no_space);
  EXPECT_EQ(test::code_of(run(cache_.write_frozen())), Errc::no_space);
  EXPECT_EQ(on_disk(0), 'a');
  EXPECT_EQ(on_disk(2), 'Y');
  EXPECT_EQ(cache_.dirty_bytes(), slice_size);

  cache_.freeze();
  EXPECT_OK(run(cache_.write_frozen()));
  EXPECT_EQ(on_disk(0), 'X');
  EXPECT_FALSE(cache_.dirty());
}

TEST_F(TableCacheTest, WrittenSaysWhichFreezeSawItLast) {
  put(0, 'X');
  cache_.freeze();
  EXPECT_OK(run(cache_.write_frozen()));
  EXPECT_EQ(get(0)->written(), 1U);
  put(0, 'Y');
  put(1, 'Y');
  cache_.freeze();
  put(1, 'Z');
  EXPECT_OK(run(cache_.write_frozen()));
  EXPECT_EQ(get(0)->written(), 2U);
  EXPECT_TRUE(get(1)->dirty());
  EXPECT_EQ(get(5)->written(), 2U);
}

TEST_F(TableCacheTest, ATableThatIsGoneIsNotWritten) {
  put(0, 'X');
  put(1, 'X');
  cache_.freeze();
  cache_.drop({at(0), slice_size});
  disk_.script.take();
  EXPECT_OK(run(cache_.write_frozen()));
  EXPECT_THAT(disk_.script.take(), ElementsAre("write 512+512"));
  EXPECT_EQ(cache_.find(at(0)), nullptr);
  EXPECT_FALSE(cache_.dirty());
}

TEST_F(TableCacheTest, ATableThatGoesWhileItIsReadIsReadAgain) {
  disk_.script.hold("read");
  const auto early = start(cache_.get(at(3)));
  settle();
  cache_.drop({at(3), slice_size});
  const auto late = start(cache_.get(at(3)));
  settle();
  EXPECT_EQ(disk_.script.waiting(), 2U);
  disk_.script.release();
  settle();
  EXPECT_TRUE(early->done() && late->succeeded());
  EXPECT_EQ(get(3), late->result->value());
  EXPECT_EQ(cache_.bytes(), slice_size);
}

TEST_F(TableCacheTest, ANewTableIsZeroAndCostsNoRead) {
  disk_.script.take();
  const TableCache::Ref made = cache_.make(at(40));
  EXPECT_EQ(first(made), '\0');
  cache_.change(*made).front() = std::byte{'N'};
  EXPECT_EQ(get(40), made);
  EXPECT_EQ(reads(), 0U);
}

TEST_F(TableCacheTest, OnlyWhatIsIdleIsForgotten) {
  put(0, 'X');
  const TableCache::Ref held = get(1);
  (void)get(2);
  cache_.forget_unused();
  EXPECT_EQ(cache_.bytes(), 3 * slice_size);
  cache_.forget_unused();
  EXPECT_EQ(cache_.bytes(), 2 * slice_size);
  EXPECT_EQ(first(get(0)), 'X');
}

}  // namespace
