// zero_trim_flush_test.cpp - WRITE_ZEROES, TRIM, CACHE and FLUSH.
// Spec: proto.md, "NBD_CMD_WRITE_ZEROES", "NBD_CMD_TRIM", "NBD_CMD_CACHE", "NBD_CMD_FLUSH";
// statements 144 to 157.
#include "tests/support/nbd_fixture.h"

namespace test {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(Protocol, S144_ZeroedBytesReadAsZeroesAndTheirNeighboursAreUntouched) {
  for (const std::string_view name : {"", "block512", "block4096"}) {
    for (const bool quick : {false, true}) {
      for (const std::uint16_t flags : {std::uint16_t{0}, flag::no_hole, flag::fua}) {
        NbdHost host;
        const std::string node = name.empty() ? "default" : std::string(name);
        host.probe(node).quick_zeroes = quick;
        host.take_effect();
        std::string expected = pattern(NbdHost::small_size);
        host.put(node, 0, expected);
        WireClient& client = host.attached(name);

        for (const Range range :
             {Range{1, 1}, Range{4095, 2}, Range{8192, 4096}, Range{20'000, 100'000},
              Range{NbdHost::small_size - 5000, 5000}}) {
          EXPECT_TRUE(client.does(cmd::write_zeroes, range.offset, range.length, flags).good());
          expected.replace(range.offset, range.length, zeroes(range.length));
        }

        EXPECT_EQ(difference(client.reads(0, NbdHost::small_size).data, expected), "");
      }
    }
  }
}

TEST(Protocol, S145_WithNoHoleTheSpaceStaysProvisioned) {
  NbdHost host;
  Probe& disk = host.probe("disk");
  WireClient& client = host.attached();

  EXPECT_TRUE(client.does(cmd::write_zeroes, 0, 1 * MiB, flag::no_hole).good());

  EXPECT_THAT(disk.calls, ElementsAre("zeroes 0+1048576"));
  EXPECT_EQ(client.does(cmd::block_status, 0, 1 * MiB).extents[0].status & 1, 0U);
}

TEST(Protocol, S146_WithoutNoHoleThereMayBeAHoleOfAnyLength) {
  NbdHost host;
  host.put("disk", 0, pattern(1 * MiB));
  WireClient& client = host.attached();

  EXPECT_TRUE(client.does(cmd::write_zeroes, 0, 200 * MiB).good());

  EXPECT_EQ(host.probe("disk").count("zeroes 0+134217728 unmap"), 1U);
  EXPECT_EQ(client.does(cmd::block_status, 0, 200 * MiB).extents,
            (std::vector<Extent>{{200 * MiB, 3}}));
}

TEST(Protocol, S147_FastZeroThatIsNotFastIsNotSupportedAndChangesNothing) {
  for (const std::uint64_t length : {std::uint64_t{512}, std::uint64_t{200 * MiB}}) {
    NbdHost host;
    host.probe("disk").quick_zeroes = false;
    host.take_effect();
    host.put("disk", 0, pattern(4096));
    WireClient& client = host.attached();

    EXPECT_EQ(client.does(cmd::write_zeroes, 0, length, flag::fast_zero).error, err::enotsup);

    EXPECT_THAT(host.probe("disk").calls, IsEmpty());
    EXPECT_EQ(difference(host.get("disk", {0, 4096}), pattern(4096)), "");
  }
}

TEST(Protocol, S147_FastZeroThatIsFastSucceeds) {
  NbdHost host;
  host.put("disk", 0, pattern(4096));
  WireClient& client = host.attached();

  EXPECT_TRUE(client.does(cmd::write_zeroes, 0, 4096, flag::fast_zero).good());

  EXPECT_EQ(difference(client.reads(0, 4096).data, zeroes(4096)), "");
}

TEST(Protocol, S148_WithoutFastZeroItIsDoneHoweverSlowly) {
  NbdHost host;
  host.probe("disk").quick_zeroes = false;
  host.take_effect();
  host.put("disk", 0, pattern(4096));
  WireClient& client = host.attached();

  EXPECT_TRUE(client.does(cmd::write_zeroes, 0, 3 * MiB).good());

  EXPECT_EQ(difference(client.reads(0, 4096).data, zeroes(4096)), "");
}

TEST(Protocol, S148_FastZeroThatWasNotAdvertisedIsInvalid) {
  NbdHost host;
  WireClient& client = host.attached("ro");

  EXPECT_EQ(client.does(cmd::write_zeroes, 0, 512, flag::fast_zero).error, err::einval);
}

TEST(Protocol, S149_AHugeZeroingIsDoneInPiecesAndLetsOthersIn) {
  NbdHost host;
  Probe& disk = host.probe("disk");
  disk.held = {"zeroes 134217728+"};
  WireClient& client = host.attached();

  const std::uint64_t zeroing = client.sends({.command = cmd::write_zeroes, .length = 256 * MiB});
  EXPECT_TRUE(client.writes(10, "abc").good());  // where it has been, while it is not over
  disk.release();

  EXPECT_TRUE(client.answer(zeroing).good());
  EXPECT_EQ(client.reads(10, 3).data, "abc");
}

TEST(Protocol, S149_AHugeZeroingEndsSoonAfterTheClientIsGone) {
  NbdHost host;
  Probe& disk = host.probe("disk");
  disk.held = {"zeroes 0+"};
  WireClient& client = host.attached();
  client.sends({.command = cmd::write_zeroes, .length = 256 * MiB});
  host.world.scheduler.settle();

  client.leaves();
  host.world.scheduler.pass(std::chrono::seconds(11));
  disk.release();

  EXPECT_TRUE(host.nobody_is_left());
  EXPECT_EQ(disk.count("zeroes"), 1U);
}

TEST(Protocol, S150_TrimTouchesNothingOutside) {
  for (const std::string_view name : {"", "block512", "block4096"}) {
    NbdHost host;
    const std::string node = name.empty() ? "default" : std::string(name);
    host.put(node, 0, pattern(NbdHost::small_size));
    WireClient& client = host.attached(name);

    EXPECT_TRUE(client.does(cmd::trim, 70'000, 300'001).good());

    const std::string heard = client.reads(0, NbdHost::small_size).data;
    EXPECT_EQ(difference(heard.substr(0, 70'000), pattern(NbdHost::small_size).substr(0, 70'000)),
              "");
    EXPECT_EQ(difference(heard.substr(370'001), pattern(NbdHost::small_size).substr(370'001)), "");
  }
}

TEST(Protocol, S150_TrimHonoursFua) {
  NbdHost host;
  WireClient& client = host.attached();

  EXPECT_TRUE(client.does(cmd::trim, 0, 64 * KiB).good());
  EXPECT_EQ(host.probe("disk").count("flush"), 0U);
  EXPECT_TRUE(client.does(cmd::trim, 0, 64 * KiB, flag::fua).good());

  EXPECT_EQ(host.probe("disk").calls.back(), "flush");
}

TEST(Protocol, S151_WhatIsCalledZeroAfterATrimReadsAsZero) {
  NbdHost host;
  host.put("disk", 0, pattern(1 * MiB));
  WireClient& client = host.attached();
  client.does(cmd::trim, 10'000, 800'000);

  std::uint64_t at = 0;
  for (const Extent& extent : client.does(cmd::block_status, 0, 1 * MiB).extents) {
    if ((extent.status & 2) != 0) {
      EXPECT_EQ(difference(host.get("disk", {at, extent.length}), zeroes(extent.length)), "");
    }
    at += extent.length;
  }
}

TEST(Protocol, S152_AnEmptyTrimZeroingOrCacheSucceeds) {
  NbdHost host;
  WireClient& client = host.attached();

  for (const std::uint16_t command : {cmd::trim, cmd::write_zeroes, cmd::cache}) {
    EXPECT_TRUE(client.does(command, 5, 0).good()) << command;
    EXPECT_TRUE(client.does(command, NbdHost::disk_size, 0).good()) << command;
  }
}

TEST(Protocol, S153_CacheTakesAnyLengthAndNoFlagButFua) {
  NbdHost host;
  WireClient& client = host.attached();

  EXPECT_TRUE(client.does(cmd::cache, 0, 256 * MiB).good());
  EXPECT_TRUE(client.does(cmd::cache, 0, 512, flag::fua).good());
  EXPECT_EQ(client.does(cmd::cache, 0, 512, flag::df).error, err::einval);
  EXPECT_EQ(client.does(cmd::cache, 0, 512, 1U << 10).error, err::einval);
}

TEST(Protocol, S153_AFailingCacheDoesNotHurtLaterReads) {
  NbdHost host;
  host.put("disk", 0, pattern(512));
  host.probe("disk").failing["prefetch"] = Errc::io_error;
  WireClient& client = host.attached();

  EXPECT_EQ(client.does(cmd::cache, 0, 512).error, err::eio);

  EXPECT_EQ(difference(client.reads(0, 512).data, pattern(512)), "");
}

TEST(Protocol, S153_WhatCanNotBeFetchedAheadIsRead) {
  NbdHost host;
  host.probe("disk").failing["prefetch"] = Errc::not_supported;
  WireClient& client = host.attached();

  EXPECT_TRUE(client.does(cmd::cache, 0, 2 * MiB).good());

  EXPECT_EQ(host.probe("disk").count("read"), 2U);
}

TEST(Protocol, S154_AFlushIsAnsweredAfterTheMediumHasFlushed) {
  NbdHost host;
  Probe& disk = host.probe("disk");
  WireClient& client = host.attached();
  ASSERT_TRUE(client.writes(0, "abc").good());
  disk.held = {"flush"};

  const std::uint64_t flush = client.sends({.command = cmd::flush});
  EXPECT_EQ(client.hears_the_rest(), "");
  EXPECT_THAT(disk.calls, ElementsAre("write 0+3", "flush"));
  disk.release();

  EXPECT_TRUE(client.answer(flush).good());
}

TEST(Protocol, S154_AWriteAnsweredWhileAFlushRunsIsCoveredByTheNext) {
  NbdHost host;
  Probe& disk = host.probe("disk");
  WireClient& client = host.attached();
  disk.held = {"flush"};
  const std::uint64_t first = client.sends({.command = cmd::flush});
  ASSERT_TRUE(client.writes(0, "abc").good());

  const std::uint64_t second = client.sends({.command = cmd::flush});
  host.world.scheduler.settle();
  disk.release();

  EXPECT_TRUE(client.answer(first).good());
  EXPECT_TRUE(client.answer(second).good());
  EXPECT_THAT(disk.calls, ElementsAre("flush", "write 0+3", "flush"));
}

TEST(Protocol, S154_AReadOnlyExportCanBeFlushed) {
  NbdHost host;

  EXPECT_TRUE(host.attached("ro").does(cmd::flush, 0, 0).good());
}

TEST(Protocol, S155_TheRangeOfAFlushMeansNothing) {
  NbdHost host;
  WireClient& client = host.attached("block4096", {.sized = true});

  EXPECT_TRUE(client.does(cmd::flush, 1, 1).good());
  EXPECT_TRUE(client.does(cmd::flush, ~0ULL, 0xffffffff).good());
}

TEST(Protocol, S156_AFailedFlushIsReportedEveryTime) {
  NbdHost host;
  WireClient& one = host.attached();
  WireClient& two = host.attached();
  host.probe("disk").failing["flush"] = Errc::io_error;

  for (WireClient* client : {&one, &two, &one}) {
    EXPECT_EQ(client->does(cmd::flush, 0, 0).error, err::eio);
    EXPECT_EQ(client->writes(0, "abc", flag::fua).error, err::eio);
    EXPECT_EQ(client->does(cmd::trim, 0, 512, flag::fua).error, err::eio);
    EXPECT_EQ(client->does(cmd::write_zeroes, 0, 512, flag::fua).error, err::eio);
  }
}

TEST(Protocol, S157_ZeroesAndTrimWithFuaAreDurableWhenAnswered) {
  for (const std::uint16_t command : {cmd::trim, cmd::write_zeroes}) {
    for (const std::uint64_t length : {std::uint64_t{1000}, std::uint64_t{200 * MiB}}) {
      NbdHost host;
      Probe& disk = host.probe("disk");
      disk.held = {"flush"};
      WireClient& client = host.attached();

      const std::uint64_t cookie =
          client.sends({.command = command, .length = length, .flags = flag::fua});
      EXPECT_EQ(client.hears_the_rest(), "");
      EXPECT_EQ(disk.calls.back(), "flush");
      EXPECT_EQ(disk.count("flush"), 1U);
      disk.release();

      EXPECT_TRUE(client.answer(cookie).good());
    }
  }
}

}  // namespace
}  // namespace test
