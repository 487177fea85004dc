// Who counts clusters: what is handed out, how the tables grow (QR-3), what is refused.
#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "formats/qcow2/refcounts.h"
#include "tests/support/graph_fixture.h"
#include "tests/support/qcow2_image.h"
#include "tests/support/seed.h"

namespace {

using namespace formats::qcow2;

struct Shape {
  unsigned cluster_bits = 9;
  unsigned refcount_order = 6;
};

// The counts of an empty image whose file is a disk in memory.
class Counted {
 public:
  explicit Counted(Shape shape, std::uint64_t seed = 1, std::size_t cache_bytes = 2048)
      : bench_(seed) {
    shape_.geometry.cluster_bits = shape.cluster_bits;
    shape_.geometry.refcount_order = shape.refcount_order;
    shape_.size = 4096;
    const std::vector<std::byte> bytes = test::empty_qcow2(shape_);
    used_ = bytes.size() >> shape.cluster_bits;
    disk_ = &bench_.disk("disk",
                         std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
    table_ = &bench_.format("table", *disk_, 0);
    bench_.grower(*table_);
    metadata_.emplace(shape.cluster_bits);
    reopen(cache_bytes);
  }
  void reopen(std::size_t cache_bytes = 2048) {
    auto header = parse_header(std::as_bytes(std::span(disk_->content))
                                   .first(std::min<std::size_t>(
                                       disk_->content.size(), 1U << shape_.geometry.cluster_bits)),
                               disk_->content.size());
    ASSERT_TRUE(header) << header.error().message;
    counts_.emplace(table_->file(), shape_.geometry, health_, *metadata_, cache_bytes);
    ASSERT_OK(bench_.run(counts_->open(*header)));
  }
  Refcounts& counts() { return *counts_; }
  test::Bench& bench() { return bench_; }
  test::Disk& disk() { return *disk_; }
  MetadataMap& metadata() { return *metadata_; }
  std::uint64_t unit() const { return shape_.geometry.cluster_size(); }
  std::uint64_t used() const { return used_; }  // clusters of the empty image

  Result<HostRun> allocate(std::uint64_t clusters) {
    return bench_.run(counts_->allocate(clusters));
  }
  std::uint64_t count(std::uint64_t host) {
    const auto found = bench_.run(counts_->get(host));
    EXPECT_OK(found);
    return found.value_or(0);
  }
  // As flush.cpp does it, with the header.
  Result<> flush() { return bench_.run(flush_in_order()); }

 private:
  Task<> flush_in_order() {
    graph::Edge& file = table_->file();
    counts_->freeze();
    CO_CHECK(co_await counts_->write());
    if (!counts_->wants_publishing()) co_return ok;
    CO_CHECK(co_await counts_->publish());
    if (const auto place = counts_->moved_to()) {
      const Be<std::uint64_t> offset = place->offset;
      const Be<std::uint32_t> clusters = place->clusters;
      const ConstBuffers first(bytes_of(offset));
      CO_CHECK(co_await file.write(48, first));
      const ConstBuffers second(bytes_of(clusters));
      CO_CHECK(co_await file.write(56, second));
    }
    counts_->published();
    co_return ok;
  }

  test::Bench bench_;
  test::Qcow2Shape shape_;
  std::uint64_t used_ = 0;
  test::Disk* disk_ = nullptr;
  test::Table* table_ = nullptr;
  Health health_{"image", bench_.world.log};
  std::optional<MetadataMap> metadata_;
  std::optional<Refcounts> counts_;
};

TEST(Refcounts, WhatIsHandedOutIsCountedOnceAndLiesBehindTheRest) {
  Counted image({});
  const auto run = image.allocate(3);
  ASSERT_OK(run);
  EXPECT_EQ(run->offset, image.used() * image.unit());
  EXPECT_EQ(run->length, 3 * image.unit());
  EXPECT_TRUE(run->fresh);
  for (unsigned i = 0; i < 3; ++i) EXPECT_EQ(image.count(run->offset + i * image.unit()), 1U);
  EXPECT_EQ(image.count(run->offset + 3 * image.unit()), 0U);
}

TEST(Refcounts, QR4_TheHeaderIsNeverHandedOut) {
  Counted image({9, 4});
  ASSERT_OK(image.bench().run(image.counts().decrease({0, 512})));
  const auto run = image.allocate(1);
  EXPECT_EQ(test::code_of(run), Errc::corrupt);
}

TEST(Refcounts, QR10_MetadataThatCountsAsFreeIsNotHandedOut) {
  Counted image({9, 4});
  image.metadata().add({image.used() * 512, 512});
  EXPECT_EQ(test::code_of(image.allocate(1)), Errc::corrupt);
}

TEST(Refcounts, WhatWasGivenBackIsHandedOutAgainAndIsNotFresh) {
  Counted image({9, 4});
  const auto run = image.allocate(4);
  ASSERT_OK(run);
  (void)image.bench().run([](Counted& counted, HostRun back) -> Task<> {
    co_await counted.counts().release(back);
    co_return ok;
  }(image, *run));
  const auto again = image.allocate(4);
  ASSERT_OK(again);
  EXPECT_EQ(again->offset, run->offset);
  EXPECT_FALSE(again->fresh);
}

TEST(Refcounts, ARunIsFreshAsAWholeOrNotAtAll) {
  Counted image({9, 4});
  const auto run = image.allocate(2);
  ASSERT_OK(run);
  ASSERT_OK(image.bench().run(image.counts().decrease({run->offset, run->length})));
  const auto used = image.allocate(5);
  ASSERT_OK(used);
  EXPECT_FALSE(used->fresh);
  EXPECT_EQ(used->length, 2 * image.unit());
  const auto fresh = image.allocate(5);
  ASSERT_OK(fresh);
  EXPECT_TRUE(fresh->fresh);
  EXPECT_EQ(fresh->length, 5 * image.unit());
}

// QR-3
class Growth : public testing::TestWithParam<unsigned> {};
INSTANTIATE_TEST_SUITE_P(Refcounts, Growth, testing::Range(0U, 7U), [](const auto& chosen) {
  return std::to_string(1U << chosen.param) + "_bits";
});

TEST_P(Growth, GoesThroughMoreBlocksAndTablesAndEverythingIsThereAfterwards) {
  Counted image({9, GetParam()});
  std::set<std::uint64_t> mine;
  const std::uint64_t wanted = GetParam() == 6 ? 9000 : 12000;
  while (mine.size() < wanted) {
    const auto run = image.allocate(1 + mine.size() % 300);
    ASSERT_OK(run);
    for (std::uint64_t at = run->offset; at < run->offset + run->length; at += image.unit()) {
      ASSERT_TRUE(mine.insert(at).second) << at << " was handed out twice";
    }
    if (mine.size() % 7 == 0) ASSERT_OK(image.flush());
  }
  const std::uint64_t end = image.counts().end();
  ASSERT_OK(image.flush());
  EXPECT_EQ(image.counts().table_clusters() > 1, GetParam() >= 5);

  image.reopen();

  for (const std::uint64_t at : mine) ASSERT_EQ(image.count(at), 1U) << at;
  for (const std::uint64_t block : image.counts().table()) {
    if (block != 0) ASSERT_EQ(image.count(block), 1U);
  }
  for (std::uint64_t at = end; at < end + 100 * image.unit(); at += image.unit()) {
    ASSERT_EQ(image.count(at), 0U);
  }
}

TEST(Refcounts, ATableThatMovedLeavesItsOldPlaceBehindOnce) {
  Counted image({});
  const std::uint64_t old = image.counts().table_offset();
  while (image.counts().table_offset() == old) ASSERT_OK(image.allocate(500));
  const auto left = image.counts().take_left_behind();
  ASSERT_EQ(left.size(), 1U);
  const Range place{old, image.unit()};
  EXPECT_EQ(left.front(), place);
  EXPECT_TRUE(image.counts().take_left_behind().empty());
  EXPECT_FALSE(image.metadata().hits({old, 1}));
  EXPECT_TRUE(image.metadata().hits({image.counts().table_offset(), 1}));
}

TEST(Refcounts, ATableIsOneRun) {
  Counted image({9, 4});
  const auto first = image.allocate(20);
  ASSERT_OK(first);
  for (const unsigned i : {1U, 2U, 5U, 6U, 7U, 10U}) {
    ASSERT_OK(image.bench().run(
        image.counts().decrease({first->offset + i * image.unit(), image.unit()})));
  }
  const auto table = image.bench().run(image.counts().allocate_table(3));
  ASSERT_OK(table);
  EXPECT_EQ(table->offset, first->offset + 5 * image.unit());
  EXPECT_EQ(table->length, 3 * image.unit());
  const auto large = image.bench().run(image.counts().allocate_table(700));
  ASSERT_OK(large);
  EXPECT_EQ(large->length, 700 * image.unit());
  for (std::uint64_t i = 0; i < 700; ++i) {
    ASSERT_EQ(image.count(large->offset + i * image.unit()), 1U);
  }
}

TEST(Refcounts, AFileThatCanNotGrowIsFilledToItsEndAndThenFull) {
  for (unsigned order = 0; order <= 6; ++order) {
    SCOPED_TRACE(order);
    Counted image({9, order});
    image.disk().content.resize(image.disk().content.size() + 300 * image.unit());
    image.disk().refresh_size();
    image.disk().grows = graph::Growth::never;
    image.reopen();
    std::set<std::uint64_t> mine;
    for (;;) {
      const auto run = image.allocate(7);
      if (!run) {
        EXPECT_EQ(run.error().code, Errc::no_space);
        break;
      }
      EXPECT_FALSE(run->fresh);
      ASSERT_LE(run->offset + run->length, image.disk().content.size());
      for (std::uint64_t at = run->offset; at < run->offset + run->length; at += image.unit()) {
        ASSERT_TRUE(mine.insert(at).second);
      }
    }
    const std::uint64_t blocks = 300 / (4096U >> order) + 2;
    EXPECT_GE(mine.size() + blocks, 300U);
    ASSERT_OK(image.bench().run(image.counts().decrease({*mine.begin(), 1})));
    const auto again = image.allocate(1);
    ASSERT_OK(again);
    EXPECT_EQ(again->offset, *mine.begin());
  }
}

TEST(Refcounts, ANewBlockCountsNothingWhateverItsPlaceHeldBefore) {
  Counted image({13, 6});
  const std::uint64_t room = 2600;
  image.disk().content.resize(image.disk().content.size() + room * image.unit(), '\xff');
  image.disk().refresh_size();
  image.disk().grows = graph::Growth::never;
  image.reopen(1 << 20);
  std::uint64_t mine = 0;
  for (auto run = image.allocate(100); run; run = image.allocate(100)) {
    mine += run->length / image.unit();
  }
  EXPECT_GE(mine + 4, room);
}

TEST(Refcounts, QR2_CountsGoUpToTheirLimitAndNoFurther) {
  for (const unsigned order : {0U, 1U, 2U, 3U}) {
    Counted image({9, order});
    const auto run = image.allocate(2);
    ASSERT_OK(run);
    const std::uint64_t most = (std::uint64_t{1} << (1U << order)) - 1;
    const Range second{run->offset + image.unit(), image.unit()};
    for (std::uint64_t i = 1; i < most; ++i) {
      ASSERT_OK(image.bench().run(image.counts().increase(second)));
    }
    const auto more = image.bench().run(image.counts().increase({run->offset, run->length}));
    EXPECT_EQ(test::code_of(more), Errc::invalid_argument);
    EXPECT_EQ(image.count(second.offset), most);
    EXPECT_EQ(image.count(run->offset), 1U) << "half of a change that was refused";
  }
}

TEST(Refcounts, QR2_CountsDoNotGoBelowNothing) {
  Counted image({9, 4});
  const Range free{image.used() * image.unit(), image.unit()};
  EXPECT_EQ(test::code_of(image.bench().run(image.counts().decrease(free))), Errc::corrupt);
  EXPECT_EQ(test::code_of(image.bench().run(image.counts().increase(free))), Errc::corrupt);
}

TEST(Refcounts, APartOfAClusterIsTheCluster) {
  Counted image({9, 4});
  const auto run = image.allocate(3);
  ASSERT_OK(run);
  ASSERT_OK(image.bench().run(image.counts().increase({run->offset + 100, 512})));
  EXPECT_EQ(image.count(run->offset), 2U);
  EXPECT_EQ(image.count(run->offset + 512), 2U);
  EXPECT_EQ(image.count(run->offset + 1024), 1U);
}

TEST(Refcounts, AFailedWriteIsMadeUpForByTheNextFlush) {
  Counted image({});
  for (int i = 0; i < 10; ++i) ASSERT_OK(image.allocate(100));
  std::string before;
  for (unsigned nth = 1;; ++nth) {
    ASSERT_OK(image.allocate(70));
    image.disk().script.fail("write", Errc::io_error, nth);
    const Result<> done = image.flush();
    image.disk().script.fail("nothing", Errc::io_error);
    ASSERT_OK(image.flush());
    EXPECT_FALSE(image.counts().dirty());
    if (done) break;
    ASSERT_LT(nth, 200U);
  }
  const std::uint64_t end = image.counts().end();
  image.reopen();
  for (std::uint64_t at = 0; at < end; at += image.unit()) ASSERT_EQ(image.count(at), 1U) << at;
}

asio::awaitable<void> take_and_give(Counted& image, std::set<std::uint64_t>& mine, bool& twice) {
  sim::Scheduler& dice = image.bench().world.scheduler;
  for (int i = 0; i < 20; ++i) {
    Result<HostRun> run;
    if (dice.one_in(6)) {
      run = co_await image.counts().allocate_table(1 + dice.choose(40));
    } else {
      run = co_await image.counts().allocate(1 + dice.choose(90));
    }
    if (!run) {
      ADD_FAILURE() << run.error().message;
      co_return;
    }
    for (std::uint64_t at = run->offset; at < run->offset + run->length; at += image.unit()) {
      twice = twice || !mine.insert(at).second;
    }
    if (!dice.one_in(2)) continue;
    for (std::uint64_t at = run->offset; at < run->offset + run->length; at += image.unit()) {
      mine.erase(at);
    }
    co_await image.counts().release(*run);
  }
}

TEST(Refcounts, NobodyGetsWhatSomebodyElseHas) {
  const std::uint64_t first = test::seed();
  for (std::uint64_t seed = first; seed < first + 100 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(test::repeat_with(seed));
    Counted image({9, static_cast<unsigned>(seed % 7)}, seed);
    image.disk().script.dawdle(image.bench().world.scheduler, 3);
    std::set<std::uint64_t> mine;
    bool twice = false;
    Gate gate;
    for (int i = 0; i < 6; ++i) {
      spawn(image.bench().world.home.executor, gate.enter_anyway(),
            take_and_give(image, mine, twice));
    }
    image.bench().settle();
    ASSERT_EQ(gate.inside(), 0U);
    EXPECT_FALSE(twice);
    ASSERT_OK(image.flush());
    std::set<std::uint64_t> left;  // where the table was: for whoever frees clusters
    for (const Range& table : image.counts().take_left_behind()) {
      for (std::uint64_t at = table.offset; at < table.end(); at += image.unit()) left.insert(at);
    }
    const std::uint64_t end = image.counts().end();
    image.reopen();
    for (std::uint64_t at = 0; at < end; at += image.unit()) {
      const bool tables = at < image.used() * image.unit() || image.metadata().hits({at, 1});
      ASSERT_EQ(image.count(at), mine.contains(at) || tables || left.contains(at) ? 1U : 0U) << at;
    }
  }
}

}  // namespace
