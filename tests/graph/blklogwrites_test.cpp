// blklogwrites: what changes a disk is in the log, whatever happens to either of them. That the log
// is QEMU's, byte by byte, is for tests/interop/write_log_test.py.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>

#include "graph/filter/filter.h"
#include "graph/filter/write_log.h"
#include "graph/protocol/protocol.h"
#include "src/toml.h"
#include "tests/support/graph_fixture.h"
#include "tests/support/seed.h"

namespace {

using graph::LogEntryHead;
using graph::LogSuperblock;
using graph::Permission;
using test::code_of;
using test::message_of;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::uint64_t sector = 512;

template <class Struct>
Struct struct_at(std::string_view bytes, std::uint64_t offset) {
  Struct value;
  std::memcpy(static_cast<void*>(&value), bytes.data() + offset, sizeof(value));
  return value;
}

struct Logged {
  Range range;
  std::uint64_t flags;
  std::string_view data;
};

// The entries that the superblock counts. Fails the test when one is not wholly there.
std::vector<Logged> entries_of(std::string_view log) {
  std::vector<Logged> entries;
  if (log.size() < sector) return entries;
  const auto super = struct_at<LogSuperblock>(log, 0);
  if (super.magic != graph::log_magic) return entries;
  std::uint64_t at = sector;
  while (entries.size() < super.entries) {
    EXPECT_LE(at + sector, log.size());
    if (testing::Test::HasFailure()) break;
    const auto head = struct_at<LogEntryHead>(log, at);
    at += sector;
    const Range range{head.sector * sector, head.sectors * sector};
    const std::uint64_t length = (head.flags & graph::log_flags::discard) != 0 ? 0 : range.length;
    EXPECT_LE(at + length, log.size());
    if (testing::Test::HasFailure()) break;
    entries.push_back({range, head.flags, log.substr(at, length)});
    at += length;
  }
  return entries;
}

std::vector<std::string> texts_of(std::string_view log) {
  std::vector<std::string> texts;
  for (const Logged& entry : entries_of(log)) {
    if (entry.flags == graph::log_flags::flush) {
      texts.emplace_back("flush");
    } else {
      const bool discard = entry.flags == graph::log_flags::discard;
      texts.push_back((discard ? "discard " : "write ") + test::text_of(entry.range));
    }
  }
  return texts;
}

class BlkLogWrites : public test::GraphTest {
 protected:
  // A node over the disk 'disk' that logs to the disk 'log'.
  graph::Node& logging(const std::string& keys = "") {
    return add("logged", "driver = 'blklogwrites'\nfile = 'disk'\nlog = 'log'\n" + keys);
  }
  std::string complaint(const std::string& keys) {
    return message_of(
        try_add("bad", "driver = 'blklogwrites'\nfile = 'disk'\nlog = 'log'\n" + keys));
  }
};

TEST_F(BlkLogWrites, LogsEachChangeWhenItHasEndedAndNoRead) {
  test::Disk& disk = this->disk("disk", 4096);
  test::Disk& log = this->disk("log", std::string());
  test::View& view = writer(logging());

  EXPECT_OK(write(view, 512, std::string(512, 'x')));
  EXPECT_OK(read(view, {512, 512}));
  EXPECT_OK(zero(view, {1024, 1024}));
  EXPECT_OK(discard(view, {2048, 512}));
  EXPECT_OK(flush(view));

  EXPECT_THAT(texts_of(log.content),
              ElementsAre("write 512+512", "write 1024+1024", "discard 2048+512", "flush"));
  EXPECT_EQ(entries_of(log.content)[0].data, std::string(512, 'x'));
  EXPECT_EQ(log.durable, log.content);
  EXPECT_EQ(disk.durable.substr(512, 512), std::string(512, 'x'));
}

TEST_F(BlkLogWrites, ALongRequestIsOneEntryThoughTheDiskTakesItInPieces) {
  test::Disk& disk = this->disk("disk", 65536);
  test::Disk& log = this->disk("log", std::string());
  disk.wants.max_transfer = 1024;
  log.wants.max_transfer = 2048;
  refresh();
  test::View& view = writer(logging());

  EXPECT_OK(write(view, 0, std::string(16384, 'x')));
  EXPECT_OK(flush(view));

  EXPECT_THAT(texts_of(log.content), ElementsAre("write 0+16384", "flush"));
  EXPECT_EQ(disk.script.count("write"), 16U);
}

TEST_F(BlkLogWrites, AnEndThatIsNoWholeSectorIsFilledUpWithZeroesInTheLog) {
  test::Disk& disk = this->disk("disk", 1000);
  test::Disk& log = this->disk("log", std::string());
  test::View& view = writer(logging());

  EXPECT_OK(write(view, 900, std::string(100, 'x')));
  EXPECT_OK(flush(view));

  EXPECT_THAT(texts_of(log.content), ElementsAre("write 512+512", "flush"));
  EXPECT_EQ(entries_of(log.content)[0].data,
            std::string(388, '.') + std::string(100, 'x') + std::string(24, '\0'));
  EXPECT_EQ(disk.content.size(), 1000U);
}

TEST_F(BlkLogWrites, AFailedWriteToTheLogFailsTheRequestAndAllAfterIt) {
  test::Disk& disk = this->disk("disk", 4096);
  test::Disk& log = this->disk("log", std::string());
  test::View& view = writer(logging());
  EXPECT_OK(write(view, 0, std::string(512, '1')));
  EXPECT_OK(flush(view));
  log.script.fail("write", Errc::no_space);

  const auto failed = write(view, 1024, std::string(512, '2'));
  const auto later = write(view, 2048, std::string(512, '3'));
  const auto flushed = flush(view);

  EXPECT_EQ(code_of(failed), Errc::no_space);
  EXPECT_EQ(failed.error().offset, 1024U);
  EXPECT_EQ(code_of(later), Errc::io_error);
  EXPECT_EQ(later.error().offset, 2048U);
  EXPECT_THAT(message_of(later), HasSubstr("log: the log of writes has a gap"));
  EXPECT_EQ(code_of(flushed), Errc::io_error);
  EXPECT_THAT(texts_of(log.content), ElementsAre("write 0+512", "flush"));
  EXPECT_EQ(disk.content.substr(1024, 512), std::string(512, '2'));
}

TEST_F(BlkLogWrites, ADiskThatFailsIsLoggedNeverthelessAndItsErrorPassedOn) {
  test::Disk& disk = this->disk("disk", 4096);
  test::Disk& log = this->disk("log", std::string());
  test::View& view = writer(logging());
  disk.script.fail("write", Errc::io_error);

  EXPECT_EQ(code_of(write(view, 0, std::string(512, '1'))), Errc::io_error);
  EXPECT_OK(flush(view));

  EXPECT_THAT(texts_of(log.content), ElementsAre("write 0+512", "flush"));
}

TEST_F(BlkLogWrites, AFlushThatFailedIsNotInTheLog) {
  test::Disk& disk = this->disk("disk", 4096);
  test::Disk& log = this->disk("log", std::string());
  test::View& view = writer(logging());
  EXPECT_OK(write(view, 0, std::string(512, '1')));
  disk.script.fail("flush", Errc::io_error);

  EXPECT_EQ(code_of(flush(view)), Errc::io_error);
  EXPECT_THAT(texts_of(log.content), IsEmpty());
  EXPECT_OK(flush(view));

  EXPECT_THAT(texts_of(log.content), ElementsAre("write 0+512", "flush"));
}

TEST_F(BlkLogWrites, Z5_AFastZeroThatIsRefusedIsNotInTheLog) {
  disk("disk", 4096);
  test::Disk& log = this->disk("log", std::string());
  test::View& view = writer(logging());
  graph::ZeroFlags fast;
  fast.no_fallback = true;

  EXPECT_EQ(code_of(zero(view, {0, 512}, fast)), Errc::not_supported);

  EXPECT_THAT(log.script.calls, IsEmpty());
}

TEST_F(BlkLogWrites, ASuperblockCountsNoEntryThatIsStillBeingWritten) {
  disk("disk", 4096);
  test::Disk& log = this->disk("log", std::string());
  test::View& view = writer(logging());
  EXPECT_OK(write(view, 0, std::string(512, '0')));
  log.script.hold("write 1536+1024");  // the next entry
  const auto writing = start_write(view, 512, std::string(512, '1'));
  settle();
  EXPECT_OK(write(view, 1024, std::string(512, '2')));

  const auto flushing = start(view.flush());
  settle();
  EXPECT_FALSE(flushing->done());
  EXPECT_THAT(texts_of(log.content), IsEmpty());
  log.script.release();
  settle();

  EXPECT_TRUE(writing->succeeded() && flushing->succeeded());
  EXPECT_THAT(texts_of(log.content),
              ElementsAre("write 0+512", "write 512+512", "write 1024+512", "flush"));
}

// The first flush may come before the write in the log though it came after it on the disk.
TEST_F(BlkLogWrites, AFlushThatFollowsAWriteCoversItInTheLogTooUnderEverySchedule) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    test::Bench bench(seed);
    bench.disk("disk", 4096);
    test::Disk& log = bench.disk("log", std::string());
    test::View& view =
        bench.writer(bench.add("logged", "driver = 'blklogwrites'\nfile = 'disk'\nlog = 'log'\n"));
    log.script.hold("write 0+512");  // both wait for the log to begin
    const auto first = bench.start_write(view, 0, std::string(512, '1'));
    bench.settle();
    const auto second = bench.start_write(view, 512, std::string(512, '2'));
    const auto flushing = bench.start(view.flush());
    bench.settle();
    log.script.release();
    bench.settle();
    ASSERT_TRUE(first->succeeded() && second->succeeded() && flushing->succeeded());

    ASSERT_OK(bench.flush(view));

    ASSERT_THAT(texts_of(log.durable), testing::IsSupersetOf({"write 0+512", "write 512+512"}))
        << "seed " << seed;
  }
}

TEST_F(BlkLogWrites, EntriesAreDurableBeforeASuperblockCountsThem) {
  disk("disk", 4096);
  test::Disk& log = this->disk("log", std::string());
  test::View& view = writer(logging("log-super-update-interval = 1"));
  log.script.take();

  EXPECT_OK(write(view, 0, std::string(512, '0')));

  EXPECT_THAT(log.script.calls,
              ElementsAre("write 0+512", "drop caches", "flush", "write 512+1024", "drop caches",
                          "flush", "write 0+512", "drop caches", "flush"));
}

TEST_F(BlkLogWrites, ANewLogIsNotTakenForTheOneThatWasThere) {
  disk("disk", 4096);
  test::Disk& log = this->disk("log", std::string());
  test::View& before = writer(logging());
  EXPECT_OK(write(before, 0, std::string(2048, 'o')));
  EXPECT_OK(flush(before));
  EXPECT_OK(detach(before));
  EXPECT_OK(run(graph.remove("logged")));
  EXPECT_THAT(texts_of(log.durable), ElementsAre("write 0+2048", "flush"));

  test::View& view = writer(logging());
  EXPECT_OK(write(view, 512, std::string(512, 'n')));

  EXPECT_THAT(texts_of(log.durable), IsEmpty());
  EXPECT_OK(flush(view));
  EXPECT_THAT(texts_of(log.durable), ElementsAre("write 512+512", "flush"));
}

TEST_F(BlkLogWrites, GoesOnBehindALogWithItsSectorSize) {
  disk("disk", 65536);
  test::Disk& log = this->disk("log", std::string());
  test::View& before = writer(logging());
  EXPECT_OK(write(before, 0, std::string(512, 'o')));
  EXPECT_OK(discard(before, {512, 4096}));
  EXPECT_OK(detach(before));
  EXPECT_OK(run(graph.remove("logged")));

  test::View& view = writer(logging("log-append = true"));
  EXPECT_OK(write(view, 1024, std::string(512, 'n')));
  EXPECT_OK(flush(view));

  EXPECT_THAT(texts_of(log.content),
              ElementsAre("write 0+512", "discard 512+4096", "write 1024+512", "flush"));
}

TEST_F(BlkLogWrites, P5_ALogHasOneWriter) {
  test::Disk& disk = this->disk("disk", 4096);
  test::Disk& log = this->disk("log", std::string());
  graph::Node& logged = logging();

  EXPECT_EQ(code_of(try_add("second", "driver = 'blklogwrites'\nfile = 'disk'\nlog = 'log'\n")),
            Errc::busy);

  EXPECT_EQ(log.parents().size(), 1U);
  EXPECT_TRUE(logged.child("log")->may(Permission::resize));
  EXPECT_EQ(disk.cumulative_access().taken, graph::Permissions::none()) << "nobody uses the disk";
}

TEST_F(BlkLogWrites, StandsAboveAndBelowRawAndInARow) {
  disk("disk", 8192);
  test::Disk& log = this->disk("log", std::string());
  test::Disk& upper_log = this->disk("upper-log", std::string());
  logging();
  add("upper", "driver = 'blklogwrites'\nfile = 'logged'\nlog = 'upper-log'\n");
  test::View& view =
      writer(add("raw", "driver = 'raw'\nfile = 'upper'\noffset = 512\nsize = 4096\n"));

  EXPECT_OK(write(view, 0, std::string(512, 'x')));
  EXPECT_OK(flush(view));

  EXPECT_THAT(texts_of(upper_log.content), ElementsAre("write 512+512", "flush"));
  EXPECT_THAT(texts_of(log.content), ElementsAre("write 512+512", "flush"));
}

TEST_F(BlkLogWrites, IsPutUnderLiveUsersAndTakenAway) {
  test::Disk& disk = this->disk("disk", 4096);
  test::Disk& log = this->disk("log", std::string());
  test::View& view = writer(disk);
  graph::Node& logged = logging();

  EXPECT_OK(run(graph.insert_filter(shared(logged), shared(disk))));
  EXPECT_OK(write(view, 0, std::string(512, '1')));
  EXPECT_OK(flush(view));
  EXPECT_OK(run(graph.bypass_filter(shared(logged))));
  EXPECT_OK(write(view, 512, std::string(512, '2')));

  EXPECT_THAT(texts_of(log.content), ElementsAre("write 0+512", "flush"));
  EXPECT_EQ(disk.content.substr(0, 1024), std::string(512, '1') + std::string(512, '2'));
}

TEST_F(BlkLogWrites, ClosingCountsWhatNoFlushDid) {
  disk("disk", 4096);
  test::Disk& log = this->disk("log", std::string());
  graph::Node& logged = logging();
  test::View& view = writer(logged);
  EXPECT_OK(write(view, 0, std::string(512, '1')));
  EXPECT_OK(detach(view));
  EXPECT_THAT(texts_of(log.content), IsEmpty());

  EXPECT_OK(run(graph.remove("logged")));

  EXPECT_THAT(texts_of(log.content), ElementsAre("write 0+512"));
}

TEST_F(BlkLogWrites, GrowsWithItsDiskWhateverTheLogIs) {
  test::Disk& disk = this->disk("disk", 4096);
  test::Disk& log = this->disk("log", 8192);
  log.grows = graph::Growth::never;
  graph::Node& logged = logging();
  EXPECT_TRUE(logged.can_grow());
  disk.grows = graph::Growth::never;
  EXPECT_FALSE(logged.can_grow());
}

TEST_F(BlkLogWrites, RefusesALogThatIsNone) {
  disk("disk", 4096);
  test::Disk& log = this->disk("log", std::string(4096, 'x'));
  const auto fill = [&](std::uint64_t entries, std::uint32_t size, LogEntryHead head) {
    LogSuperblock super;
    super.magic = graph::log_magic;
    super.version = graph::log_version;
    super.entries = entries;
    super.sector_size = size;
    log.content.assign(2048, '\0');
    std::memcpy(log.content.data(), &super, sizeof(super));
    std::memcpy(log.content.data() + sector, &head, sizeof(head));
    return complaint("log-append = true");
  };
  LogEntryHead head{};

  EXPECT_EQ(complaint("log-append = true"), "a.toml:3:1: log: is no log of writes");
  EXPECT_EQ(fill(1, 1000, head), "a.toml:3:1: log: log of writes: sectors of 1000 bytes");
  EXPECT_EQ(fill(4, 512, head), "a.toml:3:1: log: log of writes: entry 3 of 4 lies past the end");
  head.sectors = 3U;
  EXPECT_EQ(fill(1, 512, head), "a.toml:3:1: log: log of writes: entry 0 of 3 sectors leaves it");
  head.sectors = ~std::uint64_t{0};
  EXPECT_THAT(fill(1, 512, head), HasSubstr("leaves it"));
  head.flags = graph::log_flags::discard;
  EXPECT_EQ(fill(1, 512, head), "(success)");
  EXPECT_OK(run(graph.remove("bad")));
  head.flags = 16U;
  EXPECT_EQ(fill(1, 512, head), "a.toml:3:1: log: log of writes: entry 0 has unknown flags 16");
}

// The power goes while requests are under way: the log that is left can be replayed, and what a
// flush was answered for is in it.
class Trial {
 public:
  explicit Trial(std::uint64_t seed)
      : disk_(seed), world_(seed, disk_), graph_(world_.home, drivers) {
    disk_.make("disk", size);
    disk_.make("log", std::uint64_t{0});
    EXPECT_OK(world_.run(open()));
    disk_.chaos = {4, 20, 2};
  }
  void run() {
    disk_.power_off_after(static_cast<unsigned>(1 + draw(150)));
    for (int i = 0; i < 60; ++i) {
      const std::size_t beside = 1 + draw(5);
      world_.scheduler.run_until([&] { return gate_.inside() < beside; });
      spawn(world_.home.executor, gate_.enter_anyway(), operation());
    }
    world_.scheduler.run_until([&] { return gate_.inside() == 0; });
    disk_.power_off();
    (void)world_.run(graph_.detach(std::move(view_)));
    (void)world_.run(graph_.close());
    disk_.crash();
    check();
  }

 private:
  static constexpr std::uint64_t size = 32 * KiB;
  static constexpr std::array drivers{&graph::file_driver, &graph::blklogwrites_driver};
  std::uint64_t draw(std::uint64_t n) { return world_.scheduler.choose(n); }

  Task<> open() {
    const auto options = app::parse_toml(
        "driver = 'blklogwrites'\nfile = { driver = 'file', filename = 'disk' }\n"
        "log = { driver = 'file', filename = 'log' }\nlog-super-update-interval = 5\n",
        "");
    CO_TRY(const auto node, co_await graph_.add("logged", *options));
    graph::ViewOptions wanted("test");
    wanted.access.taken = Permission::consistent_read | Permission::write;
    CO_TRY(view_, co_await graph_.attach(node, std::move(wanted)));
    co_return ok;
  }

  // Versions of sectors only go up, and no two requests under way touch one sector.
  asio::awaitable<void> operation() {
    if (draw(6) == 0) {
      const auto covered = written_;
      const Result<> done = co_await view_->flush();
      if (done) raise_promises(covered);
      co_return;
    }
    const std::uint64_t at = draw(written_.size());
    if (busy_[at]) co_return;
    busy_[at] = true;
    const auto version = static_cast<std::uint8_t>(++last_[at]);
    const std::string data(sector, static_cast<char>(version));
    const ConstBuffers list(bytes_of(std::string_view(data)));
    graph::WriteFlags flags;
    flags.fua = draw(6) == 0;
    const Result<> done = co_await view_->write(at * sector, list, flags);
    if (done) written_[at] = version;
    if (done && flags.fua) promised_[at] = std::max(promised_[at], version);
    busy_[at] = false;
  }
  void raise_promises(const std::vector<std::uint8_t>& covered) {
    for (std::size_t i = 0; i < covered.size(); ++i) {
      promised_[i] = std::max(promised_[i], covered[i]);
    }
  }

  void check() {
    const std::vector<std::byte> bytes = disk_.content("log");
    const std::string log(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    std::vector<std::uint8_t> replayed(written_.size());
    for (const Logged& entry : entries_of(log)) {
      if (entry.flags == graph::log_flags::flush) continue;
      ASSERT_EQ(entry.flags, 0U);
      ASSERT_EQ(entry.range.length, sector);
      const std::uint64_t at = entry.range.offset / sector;
      ASSERT_LT(at, replayed.size());
      const auto version = static_cast<std::uint8_t>(entry.data[0]);
      ASSERT_EQ(entry.data, std::string(sector, entry.data[0])) << "torn";
      ASSERT_GT(version, replayed[at]);
      replayed[at] = version;
    }
    for (std::size_t i = 0; i < replayed.size(); ++i) {
      ASSERT_GE(replayed[i], promised_[i]) << "sector " << i;
    }
  }

  sim::Disk disk_;
  sim::World world_;
  graph::Graph graph_;
  std::unique_ptr<graph::BlockBackend> view_;
  std::vector<std::uint8_t> last_ = std::vector<std::uint8_t>(size / sector);
  std::vector<std::uint8_t> written_ = last_;   // answered
  std::vector<std::uint8_t> promised_ = last_;  // and covered by a flush
  std::vector<bool> busy_ = std::vector<bool>(size / sector);
  Gate gate_;
};

TEST(BlkLogWritesPowerCut, LeavesALogThatHoldsWhatWasFlushed) {
  const std::uint64_t first = test::seed();
  for (std::uint64_t seed = first; seed < first + 300 && !testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(test::repeat_with(seed));
    Trial(seed).run();
  }
}

}  // namespace
