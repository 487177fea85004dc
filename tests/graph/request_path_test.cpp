// Rules A-1 to A-6 (alignment, splitting) and Z-1 to Z-5 (zeroes, discard): what a medium with
// limits sees of requests that know nothing of them.
#include "graph/request_path.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cctype>

#include "tests/support/graph_fixture.h"

namespace {

using graph::CommonOptions;
using graph::DetectZeroes;
using graph::DiscardMode;
using graph::WriteFlags;
using graph::ZeroFlags;
using test::code_of;
using testing::ElementsAre;
using testing::IsEmpty;

const WriteFlags fua{true};

class RequestPath : public test::GraphTest {
 protected:
  test::Disk& aligned_disk(std::uint64_t size, std::uint32_t alignment = 512,
                           CommonOptions common = {}) {
    test::Disk& made = disk("disk", size, common);
    made.wants.request_alignment = alignment;
    refresh();
    return made;
  }
};

TEST_F(RequestPath, A1_AnyByteOfAViewCanBeReadAndWritten) {
  for (const std::uint64_t offset : {0U, 1U, 511U, 512U, 513U, 1500U, 1999U}) {
    for (const std::uint64_t length : {1U, 2U, 511U, 512U, 513U, 1024U, 1999U}) {
      if (offset + length > 2000) continue;
      test::Bench bench;
      test::Disk& disk = bench.disk("disk", 2000);
      disk.wants.request_alignment = 512;
      bench.refresh();
      test::View& view = bench.writer(disk);
      std::string expected(2000, '.');
      expected.replace(offset, length, length, 'x');

      EXPECT_OK(bench.write(view, offset, std::string(length, 'x')));

      EXPECT_EQ(disk.content, expected) << offset << "+" << length;
      EXPECT_EQ(bench.read(view, {offset, length}), std::string(length, 'x'));
    }
  }
}

TEST_F(RequestPath, A1_TheNodeSeesWholeUnitsOnly) {
  test::Disk& disk = aligned_disk(4096);
  test::View& view = writer(disk);

  EXPECT_OK(read(view, {100, 500}));
  EXPECT_OK(write(view, 512, std::string(512, 'x')));
  EXPECT_OK(write(view, 100, "x"));
  EXPECT_OK(write(view, 500, std::string(1100, 'x')));

  EXPECT_THAT(disk.script.calls,
              ElementsAre("read 0+1024", "write 512+512", "read 0+512", "write 0+512", "read 0+512",
                          "read 1536+512", "write 0+2048"));
}

TEST_F(RequestPath, A1_MemoryThatTheNodeCantUseIsCopied) {
  test::Disk& disk = this->disk("disk", 4096);
  disk.wants.memory_alignment = 512;  // though requests may lie anywhere
  refresh();
  test::View& view = writer(disk);
  Buffer memory(2048);
  const Buffers odd(memory.bytes().subspan(1, 1024));
  const ConstBuffers odd_data(odd);

  EXPECT_OK(run(view.read(0, odd)));
  EXPECT_OK(run(view.write(512, odd_data)));

  EXPECT_THAT(disk.script.calls, ElementsAre("read 0+1024", "write 512+1024"));
}

TEST_F(RequestPath, A2_TwoNeighboursInOneUnitBothSurvive) {
  test::Disk& disk = aligned_disk(4096, 4096);
  test::View& view = writer(disk);
  disk.script.hold("read");

  const auto first = start_write(view, 0, std::string(512, 'a'));
  const auto second = start_write(view, 512, std::string(512, 'b'));
  settle();
  EXPECT_EQ(disk.script.count("read"), 1U);
  disk.script.release();
  settle();

  EXPECT_TRUE(first->succeeded() && second->succeeded());
  EXPECT_EQ(disk.content.substr(0, 1024), std::string(512, 'a') + std::string(512, 'b'));
}

TEST_F(RequestPath, A2_NeighboursThatComeThroughDifferentNodesBothSurvive) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    test::Bench bench(seed);
    test::Disk& disk = bench.disk("disk", 4096);
    disk.wants.request_alignment = 4096;
    test::View& left = bench.writer(bench.filter("left", disk));
    test::View& right = bench.writer(bench.filter("right", disk));
    disk.script.dawdle(bench.world.scheduler, 2);

    const auto first = bench.start_write(left, 0, std::string(512, 'a'));
    const auto second = bench.start_write(right, 512, std::string(512, 'b'));
    bench.settle();

    ASSERT_TRUE(first->succeeded() && second->succeeded()) << "seed " << seed;
    ASSERT_EQ(disk.content.substr(0, 1024), std::string(512, 'a') + std::string(512, 'b'))
        << "seed " << seed;
  }
}

TEST_F(RequestPath, A2_AWholeUnitIsNotWrittenBetweenTheReadAndTheWriteOfAnother) {
  test::Disk& disk = aligned_disk(4096);
  test::View& view = writer(disk);
  disk.script.hold("read 0+512");

  const auto padded = start_write(view, 0, "a");
  settle();
  const auto whole = start_write(view, 0, std::string(512, 'b'));
  const auto zeroed = start(view.write_zeroes({0, 512}));
  const auto dropped = start(view.discard({0, 512}));
  const auto elsewhere = start_write(view, 512, std::string(512, 'c'));
  settle();
  EXPECT_THAT(disk.script.calls, ElementsAre("read 0+512", "write 512+512"));
  EXPECT_TRUE(elsewhere->succeeded());

  disk.script.release();
  settle();
  EXPECT_TRUE(padded->succeeded() && whole->succeeded() && zeroed->succeeded() &&
              dropped->succeeded());
  EXPECT_EQ(disk.script.calls.at(2), "write 0+512");
}

TEST_F(RequestPath, A2_OrdinaryWritesDoNotWaitForEachOther) {
  test::Disk& disk = aligned_disk(4096);
  test::View& view = writer(disk);
  disk.script.hold("write");

  start_write(view, 0, std::string(1024, 'a'));
  start_write(view, 512, std::string(1024, 'b'));
  settle();

  EXPECT_EQ(disk.script.waiting(), 2U);
  disk.script.release();
  settle();
}

TEST_F(RequestPath, A2_NeighboursSurviveUnderEverySchedule) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    test::Bench bench(seed);
    test::Disk& disk = bench.disk("disk", 1300);
    disk.wants.request_alignment = 512;
    bench.refresh();
    test::View& guest = bench.writer(disk);
    test::View& owner = bench.grower(disk);
    disk.script.dawdle(bench.world.scheduler, 3);

    std::vector<std::shared_ptr<test::Started<>>> all;
    for (std::uint64_t i = 0; i < 13; ++i) {
      all.push_back(
          bench.start_write(guest, i * 100, std::string(100, static_cast<char>('a' + i))));
    }
    for (std::uint64_t i = 13; i < 20; ++i) {
      all.push_back(
          bench.start_write(owner, i * 100, std::string(100, static_cast<char>('a' + i))));
    }
    bench.settle();

    for (const auto& each : all) ASSERT_TRUE(each->succeeded()) << "seed " << seed;
    ASSERT_EQ(disk.content.size(), 2000U) << "seed " << seed;
    for (std::uint64_t i = 0; i < 20; ++i) {
      ASSERT_EQ(disk.content.substr(i * 100, 100), std::string(100, static_cast<char>('a' + i)))
          << "seed " << seed;
    }
  }
}

// Defect 1 of the incumbents: the read's error was ignored, and the neighbours became zeroes.
TEST_F(RequestPath, A3_AFailedReadFailsThePaddedWriteAndLeavesTheNeighboursAlone) {
  for (const auto* read : {"read 0+512", "read 1024+512"}) {
    test::Bench bench;
    test::Disk& disk = bench.disk("disk", 4096);
    disk.wants.request_alignment = 512;
    bench.refresh();
    test::View& view = bench.writer(disk);
    disk.script.fail(read, Errc::io_error);

    const auto done = bench.write(view, 100, std::string(1000, 'x'));

    EXPECT_EQ(code_of(done), Errc::io_error);
    EXPECT_EQ(disk.content, std::string(4096, '.'));
    EXPECT_EQ(disk.script.count("write"), 0U);
  }
}

TEST_F(RequestPath, A3_TheErrorIsAtTheFirstOfTheCallersBytesInTheBadUnit) {
  test::Disk& disk = aligned_disk(4096);
  test::View& view = writer(disk);

  disk.script.fail("read 0+512", Errc::io_error);
  EXPECT_EQ(write(view, 100, std::string(1000, 'x')).error().offset, 100U);
  disk.script.fail("read 1024+512", Errc::io_error);
  EXPECT_EQ(write(view, 100, std::string(1000, 'x')).error().offset, 1024U);
  disk.script.fail("read 0+1536", Errc::io_error);
  EXPECT_EQ(read(view, {100, 1000}).error().offset, 100U);
}

TEST_F(RequestPath, A4_SplitsAtTheLargestTransferAndReportsTheFirstError) {
  test::Disk& disk = this->disk("disk", 4096);
  disk.wants.max_transfer = 1000;
  refresh();
  test::View& view = writer(disk);

  EXPECT_OK(write(view, 0, std::string(2500, 'x')));
  EXPECT_OK(read(view, {96, 2000}));
  EXPECT_THAT(disk.script.take(), ElementsAre("write 0+1000", "write 1000+1000", "write 2000+500",
                                              "read 96+1000", "read 1096+1000"));

  disk.script.fail("write", Errc::no_space, 2);
  const auto wrote = write(view, 0, std::string(3000, 'y'));
  EXPECT_EQ(code_of(wrote), Errc::no_space);
  EXPECT_EQ(wrote.error().offset, 1000U);
  EXPECT_THAT(disk.script.take(), ElementsAre("write 0+1000", "write 1000+1000"));
  EXPECT_EQ(disk.content.substr(998, 4), "yyxx");
}

TEST_F(RequestPath, A4_TheLargestTransferIsRoundedToWholeUnits) {
  test::Disk& disk = aligned_disk(4096);
  disk.wants.max_transfer = 1300;
  refresh();

  EXPECT_OK(write(writer(disk), 0, std::string(2048, 'x')));

  EXPECT_THAT(disk.script.calls, ElementsAre("write 0+1024", "write 1024+1024"));
}

TEST_F(RequestPath, A5_PaddingDoesNotMoveARaggedEnd) {
  test::Disk& disk = aligned_disk(1000);
  test::View& view = writer(disk);
  test::View& owner = grower(disk);

  EXPECT_OK(write(view, 999, "x"));
  EXPECT_OK(write(owner, 998, "y"));
  EXPECT_OK(zero(view, {990, 10}));
  EXPECT_OK(discard(view, {600, 400}));

  EXPECT_EQ(disk.content.size(), 1000U);
  EXPECT_THAT(disk.script.take(), testing::Contains("write 512+488"));
}

TEST_F(RequestPath, A5_AGrowingWriteEndsWhereItEnds) {
  test::Disk& disk = aligned_disk(1000);
  test::View& owner = grower(disk);

  EXPECT_OK(write(owner, 1100, "xy"));

  EXPECT_EQ(disk.content.size(), 1102U);
  EXPECT_EQ(disk.content.substr(999), "." + std::string(100, '\0') + "xy");
}

TEST_F(RequestPath, A5_ARequestThatStopsAtTheEndIsPaddedWhenTheEndMovesWhileItWaits) {
  test::Disk& disk = aligned_disk(1000);
  test::View& guest = writer(disk);
  test::View& owner = grower(disk);
  disk.script.hold("read");

  const auto growing = start_write(owner, 1000, "o");
  settle();
  const auto to_the_end = start_write(guest, 512, std::string(488, 'g'));
  const auto zeroing = start(guest.write_zeroes({512, 488}));
  settle();
  disk.script.release();
  settle();

  EXPECT_TRUE(growing->succeeded() && to_the_end->succeeded() && zeroing->succeeded());
  EXPECT_EQ(disk.content.size(), 1001U);
  EXPECT_EQ(disk.content.back(), 'o');
  EXPECT_THAT(disk.script.violations, IsEmpty());
}

TEST_F(RequestPath, A5_AShrinkWaitsForAPaddedWriteOfTheEnd) {
  test::Disk& disk = aligned_disk(1000);
  test::View& owner = grower(disk);
  disk.script.hold("read");

  const auto writing = start_write(owner, 999, "x");
  settle();
  const auto shrinking = start(owner.resize(600));
  settle();
  EXPECT_FALSE(shrinking->done());
  disk.script.release();
  settle();

  EXPECT_TRUE(writing->succeeded() && shrinking->succeeded());
  EXPECT_EQ(disk.content.size(), 600U);
}

TEST_F(RequestPath, A6_LimitsAreTheStrictestOfAllChildren) {
  test::Disk& file = this->disk("file", 4096);
  file.wants.request_alignment = 512;
  file.wants.max_transfer = 64 * KiB;
  file.wants.native_fua = file.wants.native_zeroes = true;
  test::Disk& data = this->disk("data", 4096);
  data.wants.request_alignment = 4096;
  data.wants.memory_alignment = 4096;
  data.wants.max_transfer = 1 * MiB;
  data.wants.max_discard = 8192;
  const auto made = try_table("q", file, graph::Role::metadata, &data, graph::Role::data, 4096, {});
  ASSERT_OK(made);
  refresh();

  const graph::Limits& limits = (*made)->limits();
  EXPECT_EQ(limits.request_alignment, 4096U);
  EXPECT_EQ(limits.memory_alignment, 4096U);
  EXPECT_EQ(limits.max_transfer, 64 * KiB);
  EXPECT_EQ(limits.max_discard, 8192U);
  EXPECT_FALSE(limits.native_fua);
}

TEST_F(RequestPath, A6_TheAlignmentOfABackingFileCountsForReading) {
  test::Disk& file = this->disk("file", 4096);
  test::Disk& base = this->disk("base", 4096);
  base.wants.request_alignment = 512;
  base.wants.max_discard = 4096;
  test::Table& top = overlay("top", file, base, 4096);
  refresh();

  EXPECT_EQ(top.limits().request_alignment, 512U);
  EXPECT_GT(top.limits().max_discard, 4096U);
}

TEST_F(RequestPath, A6_LimitsOfDifferentChildrenThatContradictEachOtherEndNothing) {
  test::Disk& file = this->disk("file", 8192);
  file.wants.max_transfer = 512;
  file.wants.max_zeroes = 512;
  file.wants.max_discard = 512;
  file.wants.native_zeroes = true;
  test::Pass& pass = filter("pass", file);
  pass.alignment = 4096;
  refresh();
  test::View& view = writer(pass);

  EXPECT_OK(write(view, 0, std::string(4096, 'x')));
  EXPECT_OK(zero(view, {0, 4096}));
  EXPECT_OK(discard(view, {0, 4096}));

  EXPECT_EQ(file.script.count("write"), 8U);
  EXPECT_EQ(file.script.count("zeroes"), 8U);
  EXPECT_EQ(file.script.count("discard"), 8U);
}

TEST_F(RequestPath, A6_LimitsAreMergedAgainWhenTheGraphChanges) {
  test::Disk& disk = this->disk("disk", 4096);
  test::Pass& filter = this->filter("filter", disk);
  filter.alignment = 512;
  test::View& view = writer(disk);

  EXPECT_OK(run(graph.insert_filter(shared(filter), shared(disk))));
  EXPECT_EQ(view.alignment(), 512U);
  EXPECT_OK(run(graph.bypass_filter(shared(filter))));
  EXPECT_EQ(view.alignment(), 1U);
}

TEST_F(RequestPath, NothingAtAllReachesTheNodeOfARequestForNoBytes) {
  test::Disk& disk = aligned_disk(4096);
  test::Pass& pass = filter("pass", disk);
  writer(pass);

  test::Pass& plain = filter("plain", this->disk("plain-disk", 4096));
  reader(plain);
  EXPECT_OK(run(plain.file().read(0, Buffers())));
  EXPECT_OK(run(plain.file().read(100, Buffers())));
  EXPECT_OK(run(pass.file().read(100, Buffers())));
  EXPECT_OK(run(pass.file().write(100, ConstBuffers())));
  EXPECT_OK(run(pass.file().write_zeroes({100, 0})));
  EXPECT_OK(run(pass.file().discard({100, 0})));

  EXPECT_THAT(disk.script.calls, IsEmpty());
}

TEST_F(RequestPath, Z1_AWriteOfZeroesIsFoundWhereTheNodeDoesThemBetter) {
  CommonOptions common;
  common.detect_zeroes = DetectZeroes::on;
  test::Disk& disk = aligned_disk(4096, 1, common);
  test::View& view = writer(disk);
  EXPECT_OK(write(view, 0, std::string(512, '\0')));
  EXPECT_THAT(disk.script.take(), ElementsAre("write 0+512"));

  disk.wants.native_zeroes = true;
  refresh();
  EXPECT_OK(write(view, 0, std::string(512, '\0')));
  EXPECT_OK(write(view, 0, std::string(511, '\0') + "x"));
  EXPECT_THAT(disk.script.take(), ElementsAre("zeroes 0+512", "write 0+512"));
}

TEST_F(RequestPath, Z1_UnmapAlsoGivesTheSpaceBackAndFuaIsKept) {
  CommonOptions common;
  common.detect_zeroes = DetectZeroes::unmap;
  test::Disk& disk = aligned_disk(4096, 1, common);
  disk.wants.native_zeroes = true;
  refresh();

  EXPECT_OK(write(writer(disk), 0, std::string(512, '\0'), fua));

  EXPECT_THAT(disk.script.calls, ElementsAre("zeroes 0+512 unmap", "drop caches", "flush"));
}

TEST_F(RequestPath, Z1_UnmapNeedsDiscard) {
  Options options;
  options.set("driver", OptionValue{std::string("memory"), {}});
  options.set("detect-zeroes", OptionValue{std::string("unmap"), {}});
  options.set("discard", OptionValue{std::string("ignore"), {}});
  EXPECT_EQ(code_of(run(graph.add("m", options))), Errc::invalid_argument);
}

TEST_F(RequestPath, Z2_IgnoredDiscardsSucceedWithoutEffectAndZeroesKeepTheirSpace) {
  CommonOptions common;
  common.discard = DiscardMode::ignore;
  test::Disk& disk = aligned_disk(4096, 1, common);
  disk.wants.native_zeroes = true;
  refresh();
  test::View& view = writer(disk);
  ZeroFlags unmap;
  unmap.may_unmap = true;

  EXPECT_OK(discard(view, {0, 512}));
  EXPECT_OK(zero(view, {0, 512}, unmap));

  EXPECT_THAT(disk.script.calls, ElementsAre("zeroes 0+512"));
}

TEST_F(RequestPath, Z3_AMisalignedDiscardIsPassedDownInPieces) {
  test::Disk& disk = aligned_disk(20000);
  disk.wants.discard_alignment = 4096;
  refresh();
  test::View& view = writer(disk);

  EXPECT_OK(discard(view, {3000, 10000}));
  EXPECT_THAT(disk.script.take(),
              ElementsAre("discard 3072+1024", "discard 4096+8192", "discard 12288+512"));
  EXPECT_OK(discard(view, {3072, 2048}));
  EXPECT_THAT(disk.script.take(), ElementsAre("discard 3072+1024", "discard 4096+1024"));
  EXPECT_OK(discard(view, {16384, 3616}));
  EXPECT_THAT(disk.script.take(), ElementsAre("discard 16384+3616"));
  EXPECT_OK(discard(view, {10, 20}));
  EXPECT_OK(discard(view, {500, 20}));
  EXPECT_THAT(disk.script.take(), IsEmpty());
}

TEST_F(RequestPath, Z3_ADiscardThatTheNodeCantDoIsNoErrorAndOthersAre) {
  test::Disk& disk = aligned_disk(8192);
  disk.wants.max_discard = 4096;
  refresh();
  test::View& view = writer(disk);

  disk.script.fail("discard 0", Errc::not_supported);
  EXPECT_OK(discard(view, {0, 8192}));
  EXPECT_EQ(disk.script.count("discard"), 2U);
  disk.script.fail("discard 4096", Errc::io_error);
  EXPECT_EQ(code_of(discard(view, {0, 8192})), Errc::io_error);
}

TEST_F(RequestPath, Z3_ADiscardNeverExtendsTheNode) {
  test::Disk& disk = this->disk("disk", 1000);
  test::View& owner = grower(disk);

  EXPECT_OK(discard(owner, {900, 500}));
  EXPECT_OK(discard(owner, {2000, 500}));

  EXPECT_THAT(disk.script.calls, ElementsAre("discard 900+100"));
  EXPECT_EQ(disk.content.size(), 1000U);
}

TEST_F(RequestPath, Z4_SpaceIsGivenBackOnlyWhereTheCallerAllowsIt) {
  test::Disk& disk = this->disk("disk", 4096);
  disk.wants.native_zeroes = true;
  refresh();
  test::View& view = writer(disk);
  ZeroFlags unmap;
  unmap.may_unmap = true;

  EXPECT_OK(zero(view, {0, 512}));
  EXPECT_OK(zero(view, {512, 512}, unmap));

  EXPECT_THAT(disk.script.calls, ElementsAre("zeroes 0+512", "zeroes 512+512 unmap"));
}

TEST_F(RequestPath, Z4_WhereTheNodeHasNothingBetterZeroesAreWritten) {
  test::Disk& disk = aligned_disk(4096);
  disk.wants.native_zeroes = true;
  disk.wants.zero_alignment = 1024;
  refresh();
  test::View& view = writer(disk);

  EXPECT_OK(zero(view, {500, 2000}));
  EXPECT_THAT(disk.script.take(), ElementsAre("read 0+512", "write 0+1024", "zeroes 1024+1024",
                                              "read 2048+512", "write 2048+512"));
  disk.script.break_down("zeroes", Errc::not_supported);
  EXPECT_OK(zero(view, {1024, 1024}));
  EXPECT_THAT(disk.script.take(), ElementsAre("zeroes 1024+1024", "write 1024+1024"));
  EXPECT_EQ(disk.content.find('.', 500), 2500U);
}

TEST_F(RequestPath, Z4_ZeroesPastTheEndGrowTheNodeOfAGrowableView) {
  test::Disk& disk = aligned_disk(1000);
  disk.wants.native_zeroes = true;
  refresh();
  test::View& owner = grower(disk);

  EXPECT_OK(zero(owner, {900, 300}));

  EXPECT_EQ(disk.content, std::string(900, '.') + std::string(300, '\0'));
}

TEST_F(RequestPath, Z5_FastZeroesAreNativeOrRefusedBeforeAnythingChanges) {
  test::Disk& disk = aligned_disk(4096);
  disk.wants.zero_alignment = 1024;
  refresh();
  test::View& view = writer(disk);
  ZeroFlags fast;
  fast.no_fallback = true;

  EXPECT_EQ(code_of(zero(view, {0, 1024}, fast)), Errc::not_supported);
  disk.wants.native_zeroes = true;
  refresh();
  EXPECT_EQ(code_of(zero(view, {0, 1536}, fast)), Errc::not_supported);
  EXPECT_EQ(code_of(zero(view, {512, 1024}, fast)), Errc::not_supported);
  EXPECT_THAT(disk.script.take(), IsEmpty());

  EXPECT_OK(zero(view, {1024, 2048}, fast));
  EXPECT_THAT(disk.script.take(), ElementsAre("zeroes 1024+2048 fast"));
  disk.script.fail("zeroes", Errc::not_supported);
  EXPECT_EQ(code_of(zero(view, {0, 1024}, fast)), Errc::not_supported);
  EXPECT_EQ(disk.script.count("write"), 0U);
}

TEST_F(RequestPath, Z5_SplitsAtTheMostZeroesThatTheNodeTakes) {
  test::Disk& disk = aligned_disk(8192);
  disk.wants.native_zeroes = true;
  disk.wants.max_zeroes = 3000;
  refresh();

  EXPECT_OK(zero(writer(disk), {0, 6000}));

  EXPECT_THAT(disk.script.calls, ElementsAre("zeroes 0+2560", "zeroes 2560+2560", "zeroes 5120+512",
                                             "read 5632+512", "write 5632+512"));
}

}  // namespace
