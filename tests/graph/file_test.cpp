// The file node on two disks, a simulated one and, with each engine, the kernel's; what only one
// can do comes last.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <string>

#include "tests/support/file_graph.h"

namespace {

using graph::Permission;
using test::code_of;
using test::FileGraph;
using test::Place;
using test::RealPlace;
using test::SimPlace;
using test::text;
using test::to_bytes;
using test::yes;
using testing::HasSubstr;

class File : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (std::string_view(GetParam()) == "simulated") {
      place_ = std::make_unique<SimPlace>();
    } else {
      place_ = std::make_unique<RealPlace>(engine_kind_of(GetParam()));
      if (!place_->missing().empty()) GTEST_SKIP() << place_->missing();
    }
  }
  Place& place() { return *place_; }

 private:
  std::unique_ptr<Place> place_;
};
INSTANTIATE_TEST_SUITE_P(Disks, File, testing::Values("simulated", "io_uring", "threads"),
                         [](const auto& chosen) { return std::string(chosen.param); });

TEST_P(File, GivesBackWhatWasWrittenAtAnyOffset) {
  place().make("a", std::string(10'000, 'a'));
  FileGraph file(place());
  ASSERT_OK(file.open("a"));
  ASSERT_OK(file.attach());

  EXPECT_OK(file.write(4096, std::string(4096, 'b')));
  EXPECT_OK(file.write(4095, "cc"));
  EXPECT_OK(file.write(9'999, "d"));

  EXPECT_EQ(file.read(4094, 4).value_or(""), "accb");
  EXPECT_EQ(file.read(8191, 2).value_or(""), "ba");
  EXPECT_EQ(file.read(9'998, 2).value_or(""), "ad");
  EXPECT_EQ(file.view->size(), 10'000U);
}

TEST_P(File, GrowsWhenWrittenPastItsEnd) {
  place().make("a", "abc");
  FileGraph file(place());
  ASSERT_OK(file.open("a"));
  ASSERT_OK(file.attach());

  EXPECT_OK(file.write(7, "xyz"));

  EXPECT_EQ(file.view->size(), 10U);
  EXPECT_EQ(place().content("a"), std::string("abc\0\0\0\0xyz", 10));
  EXPECT_TRUE(file.node->can_grow());
}

TEST_P(File, IsCutAndGrownByResize) {
  place().make("a", "abcdef");
  FileGraph file(place());
  ASSERT_OK(file.open("a"));
  ASSERT_OK(file.attach());

  EXPECT_OK(file.resize(3));
  EXPECT_EQ(place().content("a"), "abc");
  EXPECT_OK(file.resize(5));

  EXPECT_EQ(place().content("a"), std::string("abc\0\0", 5));
  EXPECT_EQ(file.view->size(), 5U);
}

TEST_P(File, MovesMoreThanFitsIntoOneInlineCall) {
  place().make("a", "");
  FileGraph file(place());
  ASSERT_OK(file.open("a"));
  ASSERT_OK(file.attach());
  std::string data(3 * MiB + 5, '\0');
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 7 / 5);

  EXPECT_OK(file.write(1, data));

  EXPECT_EQ(file.read(1, data.size()).value_or(""), data);
  EXPECT_EQ(place().content("a").substr(1), data);
}

TEST_P(File, ZeroesWithAndWithoutGivingSpaceBack) {
  constexpr std::uint64_t size = 1 * MiB;
  place().make("a", std::string(size, 'a'));
  FileGraph file(place());
  ASSERT_OK(file.open("a"));
  ASSERT_OK(file.attach());
  ASSERT_OK(file.flush());
  const std::uint64_t before = place().allocated("a");

  EXPECT_OK(file.zero({0, size / 4}, false));
  EXPECT_GE(place().allocated("a"), before);
  EXPECT_OK(file.zero({size / 2 - 3, size / 4 + 5}, true));

  EXPECT_LE(place().allocated("a"), before - size / 8);
  const std::string content = place().content("a");
  EXPECT_EQ(content.substr(0, size / 4 + 1), std::string(size / 4, '\0') + "a");
  EXPECT_EQ(content[size / 2 - 4], 'a');
  EXPECT_EQ(content.substr(size / 2 - 3, size / 4 + 5), std::string(size / 4 + 5, '\0'));
  EXPECT_EQ(content[size / 2 - 3 + size / 4 + 5], 'a');
}

TEST_P(File, GrowsWhenZeroesGoPastItsEnd) {
  for (const bool may_unmap : {false, true}) {
    place().make("a", std::string(5000, 'a'));
    FileGraph file(place());
    ASSERT_OK(file.open("a"));
    ASSERT_OK(file.attach());

    EXPECT_OK(file.zero({4000, 10'000}, may_unmap));

    EXPECT_EQ(file.view->size(), 14'000U);
    EXPECT_EQ(place().content("a"), std::string(4000, 'a') + std::string(10'000, '\0'));
  }
}

TEST_P(File, DiscardsWithoutMovingItsEnd) {
  place().make("a", std::string(1 * MiB + 5, 'a'));
  FileGraph file(place());
  ASSERT_OK(file.open("a"));
  ASSERT_OK(file.attach());
  ASSERT_OK(file.flush());

  EXPECT_OK(file.discard({4096, 1 * MiB + 5 - 4096}));

  EXPECT_EQ(file.view->size(), 1 * MiB + 5);
  EXPECT_EQ(place().content("a").size(), 1 * MiB + 5);
  EXPECT_LE(place().allocated("a"), 64 * KiB);
  EXPECT_EQ(place().content("a").substr(0, 4096), std::string(4096, 'a'));
}

TEST_P(File, KnowsItsHoles) {
  place().make("a", "");
  FileGraph file(place());
  ASSERT_OK(file.open("a"));
  ASSERT_OK(file.attach());
  ASSERT_OK(file.resize(1 * MiB));
  EXPECT_EQ(file.map({0, 1 * MiB}), "hole 1048576");

  ASSERT_OK(file.write(64 * KiB, std::string(64 * KiB, 'a')));
  ASSERT_OK(file.flush());
  EXPECT_EQ(file.map({0, 1 * MiB}), "hole 65536, data 65536, hole 917504");
  EXPECT_EQ(file.map({100'000, 1000}), "data 1000");

  ASSERT_OK(file.discard({64 * KiB, 32 * KiB}));
  EXPECT_EQ(file.map({0, 256 * KiB}), "hole 98304, data 32768, hole 131072");
  EXPECT_EQ(file.map({0, 1 * MiB}, graph::MapDepth::allocation), "data 1048576");
}

TEST_P(File, IsMadeWhenItIsMissingAndKeptWhenItIsThere) {
  {
    FileGraph file(place());
    ASSERT_OK(file.open("new", {{"create.size", text("100000")}}));
    ASSERT_OK(file.attach());
    EXPECT_EQ(file.view->size(), 100'000U);
    ASSERT_OK(file.write(0, "kept"));
  }
  FileGraph file(place());
  ASSERT_OK(file.open("new", {{"create.size", text("50")}}));
  ASSERT_OK(file.attach());
  EXPECT_EQ(file.view->size(), 100'000U);
  EXPECT_EQ(file.read(0, 4).value_or(""), "kept");
}

TEST_P(File, SaysWhichFileIsMissing) {
  FileGraph file(place());

  const Result<> opened = file.open("nowhere");

  EXPECT_EQ(code_of(opened), Errc::invalid_argument);
  EXPECT_THAT(opened.error().message, HasSubstr("disk0: file: can't open '"));
  EXPECT_THAT(opened.error().message, HasSubstr("nowhere': No such file or directory"));
}

TEST_P(File, WorksWithoutThePageCache) {
  place().make("a", std::string(10'000, 'a'));
  FileGraph file(place());
  const Result<> opened = file.open("a", {{"cache.direct", yes()}});
  if (!opened && opened.error().code == Errc::invalid_argument) GTEST_SKIP() << "no O_DIRECT here";
  ASSERT_OK(opened);
  ASSERT_OK(file.attach());
  const std::uint64_t unit = file.node->limits().request_alignment;
  EXPECT_GE(unit, 512U);
  EXPECT_FALSE(file.node->limits().unaligned_tail_writes);

  EXPECT_EQ(file.read(9'990, 10).value_or(""), std::string(10, 'a'));
  EXPECT_OK(file.write(511, "bb"));
  EXPECT_OK(file.write(9'999, "c"));  // the end of the file is no multiple of anything
  EXPECT_EQ(file.view->size(), 10'000U);
  EXPECT_EQ(place().content("a").size(), 10'000U);
  EXPECT_OK(file.write(10'000, "past"));

  std::string expected(10'000, 'a');
  expected.replace(511, 2, "bb");
  expected.replace(9'999, 1, "c");
  expected += "past";
  EXPECT_EQ(file.read(0, 10'004).value_or(""), expected);
  EXPECT_EQ(place().content("a").substr(0, 10'004), expected);
}

TEST_P(File, RefusesAWriterOfAnUnalignedFileThatMayNotGrowWithoutThePageCache) {
  place().make("a", std::string(10'001, 'a'));
  FileGraph file(place());
  const Result<> opened = file.open("a", {{"cache.direct", yes()}});
  if (!opened && opened.error().code == Errc::invalid_argument) GTEST_SKIP() << "no O_DIRECT here";
  ASSERT_OK(opened);

  const Result<> attached = file.attach(Permission::consistent_read | Permission::write);

  EXPECT_EQ(code_of(attached), Errc::invalid_argument);
  EXPECT_THAT(attached.error().message,
              HasSubstr("Image size is not a multiple of request alignment"));
}

TEST_P(File, CanBePrefetched) {
  place().make("a", std::string(100'000, 'a'));
  FileGraph file(place());
  ASSERT_OK(file.open("a"));
  ASSERT_OK(file.attach());

  EXPECT_OK(file.prefetch({5, 90'000}));
}

TEST_P(File, KeepsASecondWriterAway) {
  place().make("a", std::string(512, 'a'));
  FileGraph first(place());
  ASSERT_OK(first.open("a"));
  ASSERT_OK(first.attach());
  FileGraph second(place());
  ASSERT_OK(second.open("a"));

  const Result<> attached = second.attach();
  EXPECT_EQ(code_of(attached), Errc::busy);
  EXPECT_THAT(attached.error().message, HasSubstr("Failed to get \"write\" lock"));
  EXPECT_THAT(attached.error().message,
              HasSubstr("Is another process using the image [" + place().path("a") + "]?"));

  ASSERT_OK(first.detach());
  EXPECT_OK(second.attach());
}

TEST_P(File, LetsReadersShareIt) {
  place().make("a", std::string(512, 'a'));
  FileGraph first(place());
  ASSERT_OK(first.open("a", {{"read-only", yes()}}));
  ASSERT_OK(first.attach(Permission::consistent_read));
  FileGraph second(place());
  ASSERT_OK(second.open("a", {{"read-only", yes()}}));

  EXPECT_OK(second.attach(Permission::consistent_read));
}

TEST_P(File, TakesNoLocksWhenToldNotTo) {
  place().make("a", std::string(512, 'a'));
  FileGraph first(place());
  ASSERT_OK(first.open("a"));
  ASSERT_OK(first.attach());
  FileGraph off(place());
  ASSERT_OK(off.open("a", {{"locking", text("off")}}));
  EXPECT_OK(off.attach());
  FileGraph forced(place());
  ASSERT_OK(forced.open("a", {{"read-only", yes()}, {"force-share", yes()}}));
  EXPECT_OK(forced.attach(Permission::consistent_read));
}

TEST_P(File, FlushesAReadOnlyFileWithSuccess) {
  place().make("a", std::string(512, 'a'));
  FileGraph file(place());
  ASSERT_OK(file.open("a", {{"read-only", yes()}}));
  ASSERT_OK(file.attach(Permission::consistent_read));

  EXPECT_OK(file.flush());
}

class FileOnARealDisk : public testing::TestWithParam<EngineKind> {
 protected:
  void SetUp() override {
    if (!place.missing().empty()) GTEST_SKIP() << place.missing();
  }
  RealPlace place{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Engines, FileOnARealDisk, test::each_engine, test::engine_of_case);

TEST_P(FileOnARealDisk, FailsReadsBehindAnEndThatSomebodyElseMoved) {
  place.make("a", std::string(100'000, 'a'));
  FileGraph file(place);
  ASSERT_OK(file.open("a"));
  ASSERT_OK(file.attach());
  ASSERT_EQ(::truncate(place.path("a").c_str(), 50'000), 0);

  const auto read = file.read(40'000, 20'000);

  EXPECT_EQ(code_of(read), Errc::io_error);
  EXPECT_EQ(read.error().offset, 50'000U);
}

TEST_P(FileOnARealDisk, IsNoFolderAndNoFifo) {
  ASSERT_EQ(::mkdir(place.path("folder").c_str(), 0700), 0);
  ASSERT_EQ(::mkfifo(place.path("fifo").c_str(), 0600), 0);
  for (const char* name : {"folder", "fifo"}) {
    FileGraph file(place);

    const Result<> opened = file.open(name, {{"read-only", yes()}});

    EXPECT_EQ(code_of(opened), Errc::invalid_argument) << name;
    EXPECT_THAT(opened.error().message, HasSubstr("is not a regular file"));
  }
}

// What needs a disk that fails.
class FileOnASimulatedDisk : public testing::Test {
 protected:
  SimPlace place;
  sim::Disk& disk = place.disk;
  FileGraph file{place};
};

TEST_F(FileOnASimulatedDisk, DoesCachedReadsAndWholePageWritesInsideTheCall) {
  disk.make("a", 1 * MiB);
  ASSERT_OK(file.open("a"));
  ASSERT_OK(file.attach());

  EXPECT_OK(file.write(4096, std::string(8192, 'a')));
  EXPECT_OK(file.read(4097, 5));
  EXPECT_EQ(disk.calls(sim::Call::write) + disk.calls(sim::Call::read), 0U);

  EXPECT_OK(file.write(4097, "b"));  // may have to read the page first
  EXPECT_EQ(disk.calls(sim::Call::write), 1U);
  EXPECT_OK(file.write(0, std::string(512 * KiB, 'c')));  // would keep others waiting
  EXPECT_EQ(disk.calls(sim::Call::write), 2U);
  EXPECT_EQ(disk.calls(sim::Call::write_now), 1U);
}

TEST_F(FileOnASimulatedDisk, LeavesTheWorkToTheEngineOnAFileSystemThatMayHang) {
  disk.traits.is_quick = false;
  disk.traits.reads_now = false;
  disk.make("a", 1 * MiB);
  ASSERT_OK(file.open("a"));
  ASSERT_OK(file.attach());

  EXPECT_OK(file.write(0, std::string(4096, 'a')));
  EXPECT_OK(file.read(0, 5));
  EXPECT_OK(file.read(0, 5));

  EXPECT_EQ(disk.calls(sim::Call::write_now), 0U);
  EXPECT_EQ(disk.calls(sim::Call::read_now), 1U);  // said EOPNOTSUPP, once
  EXPECT_EQ(disk.calls(sim::Call::read), 2U);
}

TEST_F(FileOnASimulatedDisk, GoesOnAfterShortCountsAndInterrupts) {
  std::string expected(100'000, '\0');
  disk.chaos = {2, 3, 2};
  disk.make("a", expected.size());
  ASSERT_OK(file.open("a"));
  ASSERT_OK(file.attach());
  for (unsigned i = 0; i < 50; ++i) {
    const std::size_t offset = i * 1999;
    const std::string data(1 + i * 37 % 2000, static_cast<char>('a' + i % 26));
    EXPECT_OK(file.write(offset, data));
    expected.replace(offset, data.size(), data);
    EXPECT_EQ(file.read(offset / 2, 5000).value_or(""), expected.substr(offset / 2, 5000));
  }
  EXPECT_OK(file.zero({1, 5000}, true));
  EXPECT_OK(file.flush());
  expected.replace(1, 5000, 5000, '\0');
  EXPECT_EQ(place.content("a"), expected);
}

TEST_F(FileOnASimulatedDisk, SaysWhichByteFoundNoRoom) {
  disk.traits.capacity = 16 * KiB;
  disk.make("a", 1 * MiB);
  ASSERT_OK(file.open("a"));
  ASSERT_OK(file.attach());

  const Result<> written = file.write(8192, std::string(32 * KiB, 'a'));

  EXPECT_EQ(code_of(written), Errc::no_space);
  EXPECT_EQ(written.error().offset, 8192 + 16 * KiB);
  EXPECT_THAT(written.error().message, HasSubstr("disk0: file: write of 16384 bytes at 24576: "));
}

TEST_F(FileOnASimulatedDisk, IsAsLongAsWhatWasWrittenWhenTheRoomEnds) {
  disk.traits.capacity = 8 * KiB;
  disk.make("a", 0);
  ASSERT_OK(file.open("a"));
  ASSERT_OK(file.attach());

  EXPECT_EQ(code_of(file.write(100, std::string(32 * KiB, 'a'))), Errc::no_space);

  EXPECT_EQ(file.view->size(), 8 * KiB);
  EXPECT_EQ(file.read(100, 8 * KiB - 100).value_or(""), std::string(8 * KiB - 100, 'a'));
}

TEST_F(FileOnASimulatedDisk, IsAsLongAsWhatAFailedWriteHasLeft) {
  disk.make("a", 0);
  disk.traits.is_quick = false;
  ASSERT_OK(file.open("a"));
  ASSERT_OK(file.attach());
  disk.chaos.short_counts = 1000;  // of a write that fails, a part may be there
  for (int i = 0; i < 20; ++i) {
    disk.fail(sim::Call::write, 1, EIO);
    EXPECT_EQ(code_of(file.write(disk.size("a"), "abc")), Errc::io_error);
    ASSERT_EQ(file.view->size(), disk.size("a"));
  }
  EXPECT_GT(file.view->size(), 0U);
}

TEST_F(FileOnASimulatedDisk, ReportsAReadErrorWithItsOffset) {
  disk.make("a", std::string(4096, 'a') == "" ? 0 : 4096);
  ASSERT_OK(file.open("a"));
  ASSERT_OK(file.attach());
  disk.traits.reads_now = false;
  disk.fail(sim::Call::read, 1, EIO);

  const auto read = file.read(1000, 50);

  EXPECT_EQ(code_of(read), Errc::io_error);
  EXPECT_EQ(read.error().offset, 1000U);
  EXPECT_EQ(read.error().message, "disk0: file: read of 50 bytes at 1000: Input/output error");
}

TEST_F(FileOnASimulatedDisk, SaysInTheErrorThatSomebodyCutItAndLeavesTheLogToTheFrontEnd) {
  disk.make("a", 100'000);
  ASSERT_OK(file.open("a"));
  ASSERT_OK(file.attach());
  disk.cut("a", 50'000);

  const auto first = file.read(40'000, 20'000);
  const auto second = file.read(60'000, 1);

  EXPECT_EQ(code_of(first), Errc::io_error);
  EXPECT_EQ(first.error().offset, 50'000U);
  EXPECT_EQ(code_of(second), Errc::io_error);
  EXPECT_EQ(second.error().offset, 60'000U);
  EXPECT_THAT(first.error().message, HasSubstr("somebody cut it: nothing at 50000 of 100000"));
  EXPECT_EQ(place.log().lines.size(), 0U);
  EXPECT_EQ(file.map({60'000, 40'000}), "data 40000");  // no zeroes where a read fails
}

TEST_F(FileOnASimulatedDisk, NeverFlushesAgainOnceAFlushHasFailed) {
  disk.make("a", 100'000);
  ASSERT_OK(file.open("a"));
  ASSERT_OK(file.attach());
  ASSERT_OK(file.write(0, "abc"));
  disk.fail(sim::Call::sync, 1, EIO);
  graph::WriteFlags fua;
  fua.fua = true;

  EXPECT_EQ(code_of(file.flush()), Errc::io_error);
  EXPECT_EQ(code_of(file.flush()), Errc::io_error);
  EXPECT_EQ(code_of(file.write(0, "abc", fua)), Errc::io_error);
  EXPECT_OK(file.write(0, "abc"));
  EXPECT_EQ(disk.calls(sim::Call::sync), 1U);
}

TEST_F(FileOnASimulatedDisk, IsFailedByADurableWriteThatFailed) {
  disk.make("a", 100'000);
  ASSERT_OK(file.open("a"));
  ASSERT_OK(file.attach());
  disk.fail(sim::Call::write, 1, EIO);
  graph::WriteFlags fua;
  fua.fua = true;

  EXPECT_EQ(code_of(file.write(0, "abc", fua)), Errc::io_error);
  EXPECT_EQ(code_of(file.flush()), Errc::io_error);
}

TEST_F(FileOnASimulatedDisk, MakesOneWriteDurableWithoutAFlush) {
  disk.make("a", 100'000);
  ASSERT_OK(file.open("a"));
  ASSERT_OK(file.attach());
  graph::WriteFlags fua;
  fua.fua = true;

  ASSERT_OK(file.write(4096, std::string(4096, 'a'), fua));
  ASSERT_OK(file.write(100'000, "end", fua));
  EXPECT_EQ(disk.calls(sim::Call::sync), 0U);

  disk.power_off();
  disk.crash();
  EXPECT_EQ(place.content("a").substr(4096, 4096), std::string(4096, 'a'));
  EXPECT_EQ(place.content("a").substr(100'000), "end");
}

TEST_F(FileOnASimulatedDisk, WritesZeroesWhereTheFileSystemCanNot) {
  disk.traits.zeroes_ranges = disk.traits.punches_holes = false;
  disk.make("a", to_bytes(std::string(100'000, 'a')));
  ASSERT_OK(file.open("a"));
  ASSERT_OK(file.attach());

  EXPECT_EQ(code_of(file.zero({5, 10}, false, true)), Errc::not_supported);
  EXPECT_EQ(file.read(4, 12).value_or(""), std::string(12, 'a'));
  EXPECT_OK(file.zero({5, 10}, false));
  EXPECT_OK(file.discard({50'000, 10}));
  EXPECT_OK(file.discard({50'000, 10}));

  EXPECT_EQ(file.read(4, 12).value_or(""), "a" + std::string(10, '\0') + "a");
  EXPECT_EQ(disk.calls(sim::Call::fallocate), 2U);  // each was tried once, and remembered
}

TEST_F(FileOnASimulatedDisk, KeepsAZeroedRangeProvisioned) {
  disk.traits.capacity = 64 * KiB;
  disk.make("a", 1 * MiB);
  disk.make("b", 1 * MiB);
  ASSERT_OK(file.open("a"));
  ASSERT_OK(file.attach());
  FileGraph other(place);
  ASSERT_OK(other.open("b"));
  ASSERT_OK(other.attach());

  ASSERT_OK(file.zero({0, 32 * KiB}, false));
  EXPECT_EQ(code_of(other.write(0, std::string(64 * KiB, 'b'))), Errc::no_space);

  EXPECT_OK(file.write(0, std::string(32 * KiB, 'a')));
}

TEST_F(FileOnASimulatedDisk, AsksForHolesOnlyWhereItDoesNotKnowOfData) {
  disk.make("a", to_bytes(std::string(100'000, 'a')));
  ASSERT_OK(file.open("a"));
  ASSERT_OK(file.attach());

  EXPECT_EQ(file.map({0, 100'000}), "data 100000");
  const unsigned asked = disk.calls(sim::Call::seek);
  EXPECT_EQ(file.map({500, 1000}), "data 1000");
  EXPECT_EQ(disk.calls(sim::Call::seek), asked);

  ASSERT_OK(file.zero({0, 8192}, true));
  EXPECT_EQ(file.map({0, 100'000}), "hole 8192, data 91808");
  EXPECT_GT(disk.calls(sim::Call::seek), asked);
}

TEST_F(FileOnASimulatedDisk, LetsWritesTakeTheEngineForAWhileWhenOneWasSlow) {
  // a clock that says what the test wants it to say
  struct Jumpy final : Clock {
    Time at{};
    Duration step{};
    mutable Time next{};
    Time now() const override {
      next += step;
      return next;
    }
    std::unique_ptr<Timer> timer(Duration) override { return nullptr; }
  };
  Jumpy clock;
  clock.next += std::chrono::hours(1);
  Home home{place.world.home.executor, clock, place.world.home.engine, place.world.buffers,
            place.world.log, place.world.helpers};
  struct Elsewhere final : Place {
    Elsewhere(SimPlace& where, Home& own) : base(where), home_(own) {}
    Home& home() override { return home_; }
    Result<> run(Task<> task) override { return base.run(std::move(task)); }
    void make(const std::string&, const std::string&) override {}
    std::string content(const std::string& name) override { return base.content(name); }
    std::uint64_t allocated(const std::string& name) override { return base.allocated(name); }
    sim::MemoryLog& log() override { return base.log(); }
    SimPlace& base;
    Home& home_;
  } elsewhere(place, home);
  disk.make("a", 1 * MiB);
  FileGraph slow(elsewhere);
  ASSERT_OK(slow.open("a"));
  ASSERT_OK(slow.attach());
  const std::string page(4096, 'a');

  clock.step = std::chrono::milliseconds(100);
  ASSERT_OK(slow.write(0, page));
  clock.step = std::chrono::microseconds(1);
  ASSERT_OK(slow.write(0, page));
  EXPECT_EQ(disk.calls(sim::Call::write_now), 1U);
  EXPECT_EQ(disk.calls(sim::Call::write), 1U);

  clock.next += std::chrono::seconds(2);
  ASSERT_OK(slow.write(0, page));
  EXPECT_EQ(disk.calls(sim::Call::write_now), 2U);
}

TEST_F(FileOnASimulatedDisk, OpensForWritingOnlyWhileSomebodyWrites) {
  disk.make("a", 4096);
  ASSERT_OK(file.open("a", {{"auto-read-only", yes()}}));
  ASSERT_OK(file.attach(Permission::consistent_read));
  EXPECT_EQ(disk.calls(sim::Call::reopen), 0U);
  ASSERT_OK(file.detach());

  ASSERT_OK(file.attach());
  EXPECT_EQ(disk.calls(sim::Call::reopen), 1U);
  EXPECT_OK(file.write(1, "abc"));
  EXPECT_EQ(place.content("a").substr(1, 3), "abc");
  EXPECT_TRUE(disk.is_locked("a", 101));

  EXPECT_EQ(disk.calls(sim::Call::sync), 0U);
  ASSERT_OK(file.detach());
  EXPECT_EQ(disk.calls(sim::Call::sync), 1U);  // the last chance to learn of a lost write
  EXPECT_EQ(disk.calls(sim::Call::reopen), 2U);
  EXPECT_FALSE(disk.is_locked("a", 101));
  ASSERT_OK(file.attach());
  EXPECT_OK(file.write(1, "xyz"));
}

TEST_F(FileOnASimulatedDisk, RefusesAWriterWhereTheFileCanOnlyBeRead) {
  disk.make("a", 4096);
  disk.protect("a");
  ASSERT_OK(file.open("a", {{"auto-read-only", yes()}}));

  EXPECT_EQ(code_of(file.attach()), Errc::permission_denied);
  EXPECT_OK(file.attach(Permission::consistent_read));
  EXPECT_OK(file.read(0, 512));
  EXPECT_FALSE(disk.is_locked("a", 101));
}

// Growing by zeroes sets the size, which must not cut off what a write beside it has added.
TEST(FileUnderEverySchedule, GrowsToTheFarthestOfThoseThatGrowIt) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    SimPlace place(seed);
    place.disk.chaos.delays = 1;
    place.disk.make("a", 4096);
    FileGraph file(place);
    ASSERT_OK(file.open("a"));
    ASSERT_OK(file.attach());
    const std::string data(5000, 'a');
    const ConstBuffers list(bytes_of(data));
    Gate gate;
    std::vector<Result<>> all(3);
    const auto note = [](Task<> task, Result<>& out) -> asio::awaitable<void> {
      out = co_await std::move(task);
    };

    const auto start = [&](Task<> task, Result<>& out) {
      spawn(place.world.home.executor, gate.enter_anyway(), note(std::move(task), out));
    };
    graph::ZeroFlags flags;
    const bool writes = seed % 2 == 0;
    if (writes) start(file.view->write(30'000, list), all[0]);
    start(file.view->write_zeroes({10'000, 5000}, flags), all[1]);
    start(file.view->write_zeroes({20'000, 5000}, flags), all[2]);
    place.world.scheduler.run();

    for (const auto& each : all) ASSERT_OK(each);
    const std::uint64_t size = writes ? 35'000 : 25'000;
    ASSERT_EQ(place.disk.size("a"), size) << "seed " << seed;
    ASSERT_EQ(file.view->size(), size) << "seed " << seed;
    if (writes) {
      ASSERT_EQ(place.content("a").substr(30'000), data) << "seed " << seed;
    }
  }
}

// The kernel tells of lost writes once: to one of those that wait for it at the same time.
TEST(FileUnderEverySchedule, SucceedsInNothingDurableOnceAFlushHasFailed) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    SimPlace place(seed);
    place.disk.chaos.delays = 1;
    place.disk.make("a", 8192);
    FileGraph file(place);
    ASSERT_OK(file.open("a"));
    ASSERT_OK(file.attach());
    place.disk.fail(sim::Call::sync, 1 + static_cast<unsigned>(seed % 2), EIO);
    const std::string data(512, 'a');
    const ConstBuffers list(bytes_of(data));
    Gate gate;
    bool failed = false;
    const auto note = [](Task<> task, bool& after_failure) -> asio::awaitable<void> {
      const Result<> done = co_await std::move(task);
      EXPECT_FALSE(after_failure && done);
      after_failure = after_failure || !done;
    };
    const auto start = [&](Task<> task) {
      spawn(place.world.home.executor, gate.enter_anyway(), note(std::move(task), failed));
    };

    graph::ZeroFlags durable;
    durable.fua = true;
    graph::WriteFlags fua;
    fua.fua = true;
    start(file.view->write_zeroes({4096, 512}, durable));
    start(file.view->flush());
    start(file.view->write(0, list, fua));
    place.world.scheduler.run();

    ASSERT_TRUE(failed) << "seed " << seed;
    ASSERT_FALSE(HasFailure()) << "seed " << seed;
  }
}

TEST_F(FileOnASimulatedDisk, LeavesNothingBehindWhenItCanNotBeMadeThatLong) {
  disk.fail(sim::Call::truncate, 1, EFBIG);

  EXPECT_EQ(code_of(file.open("a", {{"create.size", text("4E")}})), Errc::no_space);

  EXPECT_FALSE(disk.exists("a"));
}

}  // namespace
