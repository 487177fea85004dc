// Rules F-1 to F-7: what is durable when.
#include "graph/flush.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/graph_fixture.h"

namespace {

using graph::CommonOptions;
using graph::Permission;
using graph::ViewOptions;
using graph::WriteFlags;
using graph::ZeroFlags;
using test::code_of;
using testing::ElementsAre;
using testing::IsEmpty;

const WriteFlags fua{true};

class Flush : public test::GraphTest {};

CommonOptions no_flush() {
  CommonOptions common;
  common.no_flush = true;
  return common;
}

TEST_F(Flush, F1_CoversEveryWriteThatHadEndedByAnyView) {
  test::Disk& disk = this->disk("disk", 512);
  test::View& writer_ = writer(disk);
  test::View& other = reader(disk);

  EXPECT_OK(write(writer_, 0, "x"));
  EXPECT_OK(flush(other));

  EXPECT_EQ(disk.durable, disk.content);
}

// A flush that came while another one ran may not be answered by that one.
TEST_F(Flush, F1_DoesNotJoinAFlushThatRunsAlready) {
  test::Disk& disk = this->disk("disk", 512);
  test::View& view = writer(disk);
  disk.script.hold("flush");

  const auto first = start(view.flush());
  settle();
  EXPECT_OK(write(view, 0, "x"));
  const auto second = start(view.flush());
  settle();
  disk.script.release();
  settle();

  EXPECT_TRUE(first->succeeded() && second->succeeded());
  EXPECT_EQ(disk.script.count("flush"), 2U);
  EXPECT_EQ(disk.durable[0], 'x');
}

TEST_F(Flush, F1_UnderEverySchedule) {
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    test::Bench bench(seed);
    test::Disk& disk = bench.disk("disk", 512);
    test::View& view = bench.writer(disk);
    disk.script.dawdle(bench.world.scheduler, 4);
    unsigned flushes = 0;
    const auto client = [](test::Bench& on, test::Disk& below, test::View& through, unsigned slot,
                           unsigned& ended) -> Task<> {
      for (unsigned round = 0; round < 4; ++round) {
        const std::string mark(1, static_cast<char>('a' + round));
        const ConstBuffers data(bytes_of(std::string_view(mark)));
        CO_CHECK(co_await through.write(slot, data));
        CO_CHECK(co_await through.flush());
        EXPECT_EQ(below.durable.at(slot), mark[0]) << on.world.scheduler.steps();
        ++ended;
      }
      co_return ok;
    };
    for (unsigned slot = 0; slot < 5; ++slot) {
      bench.start(client(bench, disk, view, slot, flushes));
    }
    bench.settle();
    ASSERT_EQ(flushes, 20U) << "seed " << seed;
  }
}

TEST_F(Flush, F2_EmptiesCachesThenTheNodesOwnMediumThenWhatItWritesThrough) {
  test::Disk& file = disk("file", 512);
  test::Disk& base = disk("base", 512);
  test::Table& top = overlay("top", file, base, 512);
  test::View& view = writer(top);

  EXPECT_OK(flush(view));

  EXPECT_THAT(top.script.calls, ElementsAre("drop caches"));
  EXPECT_THAT(file.script.calls, ElementsAre("drop caches", "flush"));
  EXPECT_THAT(base.script.calls, IsEmpty());
}

TEST_F(Flush, F2_WhatCantReachTheChildrenIsNotClaimedToBeDurable) {
  test::Disk& file = disk("file", 512);
  test::Table& top = format("top", file, 512);
  test::View& view = writer(top);
  top.script.fail("drop caches", Errc::no_space);

  EXPECT_EQ(code_of(flush(view)), Errc::no_space);

  EXPECT_THAT(file.script.calls, IsEmpty());
}

TEST_F(Flush, F2_TheFirstErrorWinsAndEveryChildIsFlushedAllTheSame) {
  test::Disk& meta = disk("meta", 512);
  test::Disk& data = disk("data", 512);
  const auto top = try_table("top", meta, graph::Role::metadata, &data, graph::Role::data, 512, {});
  ASSERT_OK(top);
  test::View& view = writer(**top);
  meta.script.fail("flush", Errc::io_error);
  data.script.fail("flush", Errc::no_space);

  EXPECT_EQ(code_of(flush(view)), Errc::io_error);

  EXPECT_EQ(data.script.count("flush"), 1U);
}

TEST_F(Flush, F2_AFailureReachesEveryoneWhoWaitedAndTheNextFlushAsksAgain) {
  test::Disk& disk = this->disk("disk", 512);
  test::View& view = writer(disk);
  disk.script.fail("flush", Errc::io_error, 2);
  disk.script.hold("flush");

  const auto running = start(view.flush());
  settle();
  const auto a = start(view.flush());
  const auto b = start(view.flush());
  settle();
  disk.script.release();
  settle();

  EXPECT_TRUE(running->succeeded());
  EXPECT_EQ(a->error(), Errc::io_error);
  EXPECT_EQ(b->error(), Errc::io_error);
  EXPECT_OK(flush(view));
  EXPECT_EQ(disk.script.count("flush"), 3U);
}

TEST_F(Flush, F3_ManyFlushesThatWaitNeedTwoOfTheDevice) {
  test::Disk& disk = this->disk("disk", 512);
  test::View& view = writer(disk);
  disk.script.hold("flush");

  std::vector<std::shared_ptr<test::Started<>>> all;
  for (int i = 0; i < 100; ++i) all.push_back(start(view.flush()));
  settle();
  EXPECT_EQ(disk.script.count("flush"), 1U);
  disk.script.release();
  settle();

  for (const auto& each : all) EXPECT_TRUE(each->succeeded());
  EXPECT_LE(disk.script.count("flush"), 2U);
}

TEST_F(Flush, F4_WithoutFlushesCachesStillGoToTheSystem) {
  test::Disk& file = disk("file", 512, no_flush());
  test::Table& top = format("top", file, 512);
  test::View& view = writer(top);

  EXPECT_OK(flush(view));

  EXPECT_THAT(top.script.calls, ElementsAre("drop caches"));
  EXPECT_THAT(file.script.calls, ElementsAre("drop caches"));
}

TEST_F(Flush, F4_ANodeWithoutFlushesSparesWhatIsBelow) {
  test::Disk& file = disk("file", 512);
  test::Table& top = format("top", file, 512, no_flush());

  EXPECT_OK(flush(writer(top)));

  EXPECT_THAT(file.script.calls, ElementsAre("drop caches"));
}

TEST_F(Flush, F4_AFlushForDurabilityIsNotAnsweredByOneWithout) {
  test::Disk& file = disk("file", 512);
  test::Table& lazy = format("lazy", file, 512, no_flush());
  test::View& unsafe = writer(lazy);
  test::View& safe = reader(file);
  file.script.hold("drop caches");

  const auto first = start(unsafe.flush());
  settle();
  const auto second = start(safe.flush());
  const auto third = start(unsafe.flush());
  settle();
  file.script.release();
  settle();

  EXPECT_TRUE(first->succeeded() && second->succeeded() && third->succeeded());
  EXPECT_EQ(file.script.count("flush"), 1U);
}

TEST_F(Flush, F5_FuaWithoutTheNodesHelpIsOneFlushAfterTheLastPiece) {
  test::Disk& disk = this->disk("disk", 4096);
  disk.wants.max_transfer = 1024;
  refresh();
  test::View& view = writer(disk);

  EXPECT_OK(write(view, 0, std::string(512, 'x'), fua));
  EXPECT_THAT(disk.script.take(), ElementsAre("write 0+512", "drop caches", "flush"));
  EXPECT_OK(write(view, 0, std::string(3072, 'x'), fua));
  EXPECT_THAT(disk.script.take(), ElementsAre("write 0+1024", "write 1024+1024", "write 2048+1024",
                                              "drop caches", "flush"));
}

TEST_F(Flush, F5_FuaWithTheNodesHelpIsTheWriteItself) {
  test::Disk& disk = this->disk("disk", 4096);
  disk.wants.native_fua = true;
  refresh();

  EXPECT_OK(write(writer(disk), 0, "x", fua));

  EXPECT_THAT(disk.script.calls, ElementsAre("write 0+1 fua"));
  EXPECT_EQ(disk.durable, disk.content);
}

TEST_F(Flush, F5_AFailedPieceIsNotFlushedAndAFailedFlushFailsTheWrite) {
  test::Disk& disk = this->disk("disk", 4096);
  disk.wants.max_transfer = 1024;
  refresh();
  test::View& view = writer(disk);

  disk.script.fail("write", Errc::io_error);
  EXPECT_EQ(code_of(write(view, 0, std::string(2048, 'x'), fua)), Errc::io_error);
  EXPECT_EQ(disk.script.count("flush"), 0U);
  disk.script.fail("flush", Errc::io_error);
  const auto done = write(view, 1024, "x", fua);
  EXPECT_EQ(code_of(done), Errc::io_error);
  EXPECT_EQ(done.error().offset, 1024U);
}

TEST_F(Flush, F5_FuaMeansNothingWithoutFlushes) {
  test::Disk& disk = this->disk("disk", 4096, no_flush());
  disk.wants.native_fua = true;
  refresh();

  EXPECT_OK(write(writer(disk), 0, "x", fua));

  EXPECT_THAT(disk.script.calls, ElementsAre("write 0+1", "drop caches"));
}

TEST_F(Flush, F6_FuaOnZeroesAndDiscardsIsHonoured) {
  test::Disk& disk = this->disk("disk", 4096);
  disk.wants.native_zeroes = true;
  refresh();
  test::View& view = writer(disk);
  ZeroFlags zero_fua;
  zero_fua.fua = true;

  EXPECT_OK(zero(view, {0, 512}, zero_fua));
  EXPECT_THAT(disk.script.take(), ElementsAre("zeroes 0+512", "drop caches", "flush"));
  EXPECT_OK(run(view.discard({0, 512}, fua)));
  EXPECT_THAT(disk.script.take(), ElementsAre("discard 0+512", "drop caches", "flush"));
}

TEST_F(Flush, F6_AWriteThroughViewMakesEachChangeDurable) {
  test::Disk& disk = this->disk("disk", 4096);
  ViewOptions options("export 'e'");
  options.access.taken = Permission::consistent_read | Permission::write;
  options.write_through = true;
  test::View& view = this->view(disk, std::move(options));

  EXPECT_OK(write(view, 0, "x"));
  EXPECT_EQ(disk.script.count("flush"), 1U);
  EXPECT_OK(zero(view, {0, 1}));
  EXPECT_EQ(disk.script.count("flush"), 2U);
  EXPECT_OK(discard(view, {0, 1}));
  EXPECT_EQ(disk.script.count("flush"), 3U);
}

TEST_F(Flush, F7_SucceedsOnAReadOnlyView) {
  CommonOptions common;
  common.read_only = true;
  test::Disk& disk = this->disk("disk", 512, common);
  EXPECT_OK(flush(reader(disk)));
}

}  // namespace
