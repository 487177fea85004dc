// info_test.cpp - INFO and GO: what a client learns about an export, and what it gets.
// Spec: proto.md, "NBD_OPT_INFO and NBD_OPT_GO", "NBD_REP_INFO", "Transmission flags", "Size
// constraints"; statements 47 to 68.
#include <bit>

#include "tests/support/nbd_fixture.h"

namespace test {
namespace {

WireClient& greeted(NbdHost& host) {
  WireClient& client = host.client();
  client.greets();
  return client;
}

TEST(Protocol, S47_ANameLongerThanTheOptionIsInvalid) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);

    for (const std::uint64_t length : {3U, 5U, 100U, 4096U, 0xfffffffaU, 0xffffffffU}) {
      EXPECT_EQ(client.asks(opt::go, be32(length) + "ab").end(), rep::err_invalid) << length;
      EXPECT_EQ(client.asks(opt::info, be32(length) + "ab").end(), rep::err_invalid) << length;
    }

    EXPECT_TRUE(client.goes("disk").acked());
  }
}

TEST(Protocol, S48_TheOptionIsExactlyAsLongAsWhatItHolds) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);
    const std::string data = info_data("disk", {inf::name, inf::block_size});

    for (std::size_t length = 0; length < data.size(); ++length) {
      EXPECT_EQ(client.asks(opt::info, data.substr(0, length)).end(), rep::err_invalid) << length;
    }
    EXPECT_EQ(client.asks(opt::info, data + "x").end(), rep::err_invalid);
    EXPECT_EQ(client.asks(opt::go, data + "xx").end(), rep::err_invalid);

    EXPECT_TRUE(client.asks(opt::go, data).acked());
  }
}

TEST(Protocol, S49_UnknownInformationIsNotMissed) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);

    const OptionAnswer answer = client.goes("disk", {4, 99, 0x8000, 0xffff});

    EXPECT_TRUE(answer.acked());
    EXPECT_EQ(answer.all(rep::info).size(), 2U);
  }
}

TEST(Protocol, S50_WhatIsAskedTwiceIsAnsweredOnce) {
  NbdHost host;
  WireClient& client = greeted(host);
  std::vector<std::uint16_t> wanted(65535, inf::name);
  wanted.back() = inf::block_size;

  const OptionAnswer answer = client.goes("disk", wanted);

  EXPECT_TRUE(answer.acked());
  EXPECT_EQ(answer.all(rep::info).size(), 3U);
}

TEST(Protocol, S51_SuccessTellsSizeAndFlagsBeforeTheAck) {
  for (const Segments segments : sim::all_segments) {
    for (const std::uint32_t number : {opt::info, opt::go}) {
      NbdHost host(segments);
      WireClient& client = greeted(host);

      const OptionAnswer answer = client.asks(number, info_data("disk"));

      EXPECT_TRUE(answer.acked());
      ASSERT_TRUE(answer.info(inf::size));
      EXPECT_EQ(answer.info(inf::size)->size(), 10U);
    }
  }
}

TEST(Protocol, S52_InfoTellsTheRealSizeAndTheFlagsOfGo) {
  for (const std::string_view name : {"disk", "ro", "block4096", ""}) {
    NbdHost host;
    WireClient& client = greeted(host);

    const OptionAnswer info = client.infos(name);
    const OptionAnswer go = client.goes(name);

    EXPECT_EQ(info.size(), name == "disk" ? NbdHost::disk_size : NbdHost::small_size);
    EXPECT_EQ(info.flags(), go.flags());
    EXPECT_EQ(info.size(), go.size());
  }
}

TEST(Protocol, S53_GoAfterInfoSaysTheSame) {
  const std::vector<std::uint16_t> everything = {inf::size, inf::name, inf::description,
                                                 inf::block_size};
  for (const auto& wanted : {std::vector<std::uint16_t>{}, everything}) {
    NbdHost host;
    WireClient& client = greeted(host);
    client.structures();

    const OptionAnswer info = client.infos("block4096", wanted);
    const OptionAnswer go = client.goes("block4096", wanted);

    EXPECT_EQ(info.all(rep::info), go.all(rep::info));
  }
}

TEST(Protocol, S54_NothingFollowsTheAckOfGo) {
  for (const std::uint32_t flags : {1U, 3U}) {
    NbdHost host;
    WireClient& client = host.client();
    client.greets(flags);

    EXPECT_TRUE(client.goes("disk").acked());

    EXPECT_EQ(client.hears_the_rest(), "");
  }
}

TEST(Protocol, S55_AfterAFailedGoAnotherWorks) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);

    EXPECT_EQ(client.goes("nobody").end(), rep::err_unknown);
    EXPECT_TRUE(client.goes("ro").acked());

    EXPECT_EQ(client.writes(0, "x").error, err::eperm);
  }
}

TEST(Protocol, S56_AnUnknownExportIsUnknownAndNothingElseIsSaid) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);

    for (const std::string_view name : {"nobody", "dis", "disk2", "DISK", "disk/", "/disk", "."}) {
      for (const OptionAnswer& answer : {client.infos(name), client.goes(name)}) {
        EXPECT_EQ(answer.end(), rep::err_unknown) << name;
        EXPECT_EQ(answer.replies.size(), 1U) << name;
      }
    }
  }
}

TEST(Protocol, S57_TheEmptyNameIsTheDefaultExport) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);

    EXPECT_EQ(client.goes("").size(), NbdHost::small_size);
    client.writes(0, "default");

    EXPECT_EQ(host.get("default", {0, 7}), "default");
  }
}

TEST(Protocol, S57_WithoutADefaultExportTheEmptyNameIsUnknown) {
  sim::World world(1);
  nbd::Lobby lobby(world.home, nbd::LobbyOptions{}, {});
  sim::StreamPair pair = sim::stream_pair(world.scheduler, sim::Line{});
  WireClient client(world.scheduler, std::move(pair.client));
  lobby.receive(std::move(pair.server));
  client.greets();

  EXPECT_EQ(client.goes("").end(), rep::err_unknown);

  client.leaves();
  world.scheduler.settle();
}

TEST(Protocol, S58_TheNameIsToldWhenAsked) {
  NbdHost host;
  WireClient& client = greeted(host);

  EXPECT_EQ(client.infos("disk", {inf::name}).info(inf::name), "disk");
  EXPECT_EQ(client.infos("", {inf::name}).info(inf::name), "");
  EXPECT_EQ(client.infos("disk").info(inf::name), std::nullopt);
}

TEST(Protocol, S59_TheDescriptionIsToldWhenAskedAndSet) {
  NbdHost host;
  WireClient& client = greeted(host);

  EXPECT_EQ(client.infos("disk", {inf::description}).info(inf::description), "a large disk");
  EXPECT_EQ(client.infos("", {inf::description}).info(inf::description), std::nullopt);
  EXPECT_EQ(client.infos("disk").info(inf::description), std::nullopt);
}

TEST(Protocol, S60_TheBlockSizeIsAlwaysTold) {
  NbdHost host;
  WireClient& client = greeted(host);

  for (const auto& wanted :
       {std::vector<std::uint16_t>{}, std::vector<std::uint16_t>{inf::block_size}}) {
    const OptionAnswer answer = client.infos("block4096", wanted);
    ASSERT_TRUE(answer.info(inf::block_size));
    EXPECT_EQ(answer.info(inf::block_size)->size(), 12U);
    EXPECT_EQ(answer.block_size(0), wanted.empty() ? 1U : 4096U);
    EXPECT_EQ(answer.block_size(2), 32 * MiB);
  }
}

TEST(Protocol, S61_NobodyIsRequiredToAskForTheBlockSize) {
  for (const std::uint32_t number : {opt::info, opt::go}) {
    NbdHost host;
    WireClient& client = greeted(host);

    EXPECT_TRUE(client.asks(number, info_data("block4096")).acked());
  }
}

TEST(Protocol, S62_WhoAskedForTheBlockSizeMustKeepToIt) {
  NbdHost host;
  WireClient& client = host.attached("block4096", {.sized = true});

  EXPECT_EQ(client.reads(0, 512).error, err::einval);
  EXPECT_EQ(client.writes(512, zeroes(4096)).error, err::einval);
  EXPECT_TRUE(client.reads(4096, 8192).good());
}

TEST(Protocol, S62_WhoDidNotAskMayUseSingleBytes) {
  NbdHost host;
  host.put("block4096", 0, pattern(16384));
  WireClient& client = host.attached("block4096");

  EXPECT_TRUE(client.writes(4095, "XY").good());
  EXPECT_EQ(client.reads(4094, 4).data,
            pattern(16384).substr(4094, 1) + "XY" + pattern(16384).substr(4097, 1));
  EXPECT_TRUE(client.does(cmd::write_zeroes, 10000, 1).good());

  std::string expected = pattern(16384);
  expected.replace(4095, 2, "XY");
  expected[10000] = '\0';
  EXPECT_EQ(difference(host.get("block4096", {0, 16384}), expected), "");
}

TEST(Protocol, S63_BlockSizesArePowersOfTwoInOrder) {
  for (const std::uint32_t alignment : {1U, 512U, 4096U, 65536U, 1048576U}) {
    for (const std::uint32_t preferred : {0U, 1U, 3000U, 4096U, 65536U, 0xffffffffU}) {
      for (const bool asked : {false, true}) {
        NbdHost host;
        host.probe("disk").alignment = alignment;
        host.probe("disk").preferred = preferred;
        host.take_effect();
        WireClient& client = greeted(host);

        const OptionAnswer answer =
            client.infos("disk", asked ? std::vector<std::uint16_t>{inf::block_size}
                                       : std::vector<std::uint16_t>{});

        const std::uint64_t minimum = answer.block_size(0);
        const std::uint64_t advised = answer.block_size(1);
        EXPECT_TRUE(std::has_single_bit(minimum));
        EXPECT_LE(minimum, 65536U);
        EXPECT_TRUE(std::has_single_bit(advised));
        EXPECT_GE(advised, std::max<std::uint64_t>(minimum, 512));
        EXPECT_GE(answer.block_size(2), advised);
        EXPECT_GE(answer.block_size(2), 1 * MiB);
      }
    }
  }
}

TEST(Protocol, S63_WhoKeepsToTheLargestMinimumIsServedByALargerAlignment) {
  NbdHost host;
  host.probe("disk").alignment = 1 << 20;
  host.take_effect();
  WireClient& client = host.attached("disk", {.sized = true});

  EXPECT_TRUE(client.writes(65536, pattern(65536)).good());

  EXPECT_EQ(difference(client.reads(65536, 65536).data, pattern(65536)), "");
}

TEST(Protocol, S64_TheSizeIsAMultipleOfTheMinimumBlock) {
  NbdHost host;
  host.serve("odd", 4096 * 3 + 1536).alignment = 4096;
  host.take_effect();
  WireClient& client = greeted(host);

  const OptionAnswer answer = client.goes("odd", {inf::block_size});

  EXPECT_EQ(answer.size(), 4096U * 3 + 1536);
  EXPECT_EQ(answer.block_size(0), 512U);
  EXPECT_TRUE(client.writes(4096 * 3, pattern(1536)).good());
  EXPECT_EQ(difference(client.reads(4096 * 3, 1536).data, pattern(1536)), "");
}

TEST(Protocol, S65_HasFlagsIsAlwaysSet) {
  for (const std::string_view name : {"disk", "ro", ""}) {
    NbdHost host;
    WireClient& client = greeted(host);

    EXPECT_NE(client.infos(name).flags() & tflag::has_flags, 0);
  }
}

TEST(Protocol, S66_TheFlagsAreWhatTheConnectionCanUse) {
  NbdHost host;
  WireClient& client = greeted(host);
  constexpr std::uint16_t always =
      tflag::has_flags | tflag::flush | tflag::fua | tflag::multi_conn | tflag::cache;
  constexpr std::uint16_t writing = tflag::trim | tflag::write_zeroes | tflag::fast_zero;

  EXPECT_EQ(client.infos("disk").flags(), always | writing);
  EXPECT_EQ(client.infos("ro").flags(), always | tflag::read_only);
  client.structures();
  EXPECT_EQ(client.infos("disk").flags(), always | writing | tflag::df);
}

TEST(Protocol, S67_FlagsFollowWhatWasNegotiatedSince) {
  NbdHost host;
  WireClient& client = greeted(host);

  EXPECT_EQ(client.infos("disk").flags() & tflag::df, 0);
  client.structures();

  EXPECT_NE(client.goes("disk").flags() & tflag::df, 0);
  EXPECT_EQ(greeted(host).infos("disk").flags() & tflag::df, 0);  // of this connection alone
}

TEST(Protocol, S68_SeveralConnectionsAreAllowedBecauseAFlushCoversThemAll) {
  NbdHost host;
  WireClient& one = host.attached();
  WireClient& two = host.attached();
  ASSERT_NE(greeted(host).infos("disk").flags() & tflag::multi_conn, 0);

  ASSERT_TRUE(one.writes(0, "from one").good());
  ASSERT_TRUE(two.does(cmd::flush, 0, 0).good());

  EXPECT_THAT(host.probe("disk").calls, testing::ElementsAre("write 0+8", "flush"));
}

}  // namespace
}  // namespace test
