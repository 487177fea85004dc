// transmission_test.cpp - requests and replies in general: framing, cookies, which error for what,
// back-pressure. Spec: proto.md, "Transmission", "Request message", "Simple reply message",
// "Structured reply chunk message", "Error values"; statements 101 to 120, 194.
#include "tests/support/nbd_fixture.h"

namespace test {
namespace {

using testing::IsEmpty;

TEST(Protocol, S101_AWrongRequestMagicEndsTheConnectionWithoutAReply) {
  for (const std::uint32_t magic :
       {0x21e41c71U, 0x12560953U, 0x96744668U, 0x25609514U, 0U, 0x25609512U, 0x13956025U}) {
    NbdHost host;
    WireClient& client = host.attached();

    client.says(Request{.length = 1, .cookie = 5, .magic = magic}.bytes());

    EXPECT_EQ(client.hears_the_rest(), "");
    EXPECT_TRUE(client.was_closed());
  }
}

TEST(Protocol, S102_TheCookieComesBackBitForBit) {
  NbdHost host;
  WireClient& client = host.attached("disk", simple_replies);

  for (const std::uint64_t cookie : {0ULL, 1ULL, 0x0123456789abcdefULL, ~0ULL, 1ULL << 63}) {
    client.says(Request{.command = cmd::flush, .cookie = cookie}.bytes());
    EXPECT_EQ(client.hears(16).substr(8), be64(cookie));
  }
}

TEST(Protocol, S102_TwoRequestsWithOneCookieAreBothAnswered) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    HostOptions options;
    options.seed = seed;
    NbdHost host(options);
    host.put("disk", 0, pattern(100));
    WireClient& client = host.attached();
    host.probe("disk").held = {"read"};

    const Request one{.offset = 10, .length = 20, .cookie = 7};
    client.sends(one);
    client.sends(one);
    host.world.scheduler.settle();
    host.probe("disk").release();

    EXPECT_EQ(difference(client.answer(7).data, pattern(20, 10)), "");
    EXPECT_EQ(difference(client.answer(7).data, pattern(20, 10)), "");
  }
}

TEST(Protocol, S103_WithoutStructuredRepliesThereAreOnlySimpleOnes) {
  NbdHost host;
  WireClient& client = host.attached("broken", simple_replies);

  for (const Answer& answer :
       {client.reads(0, 100), client.reads(512 * KiB, 100), client.reads(0, 100, flag::df),
        client.writes(0, "x"), client.does(cmd::flush, 0, 0), client.does(99, 0, 0),
        client.does(cmd::block_status, 0, 512), client.does(cmd::trim, 0, 512),
        client.does(cmd::cache, 0, 512), client.does(cmd::write_zeroes, 0, 512)}) {
    EXPECT_TRUE(answer.simple());
  }
}

TEST(Protocol, S104_WithStructuredRepliesAReadIsNeverAnsweredByASimpleOne) {
  NbdHost host;
  WireClient& client = host.attached("broken");

  for (const Answer& answer :
       {client.reads(0, 100), client.reads(0, 0), client.reads(512 * KiB, 100),
        client.reads(0, 1, 0xffff), client.reads(~0ULL, 1), client.reads(0, 0xffffffff),
        client.reads(0, 256 * KiB, flag::df)}) {
    ASSERT_FALSE(answer.messages.empty());
    for (const Message& message : answer.messages) EXPECT_FALSE(message.simple());
  }
}

TEST(Protocol, S104_ErrorsOfOtherCommandsAreStructuredWithAText) {
  NbdHost host;
  WireClient& client = host.attached("ro");

  for (const Answer& answer :
       {client.writes(0, "x"), client.does(cmd::trim, 0, 1), client.does(99, 0, 0),
        client.does(cmd::cache, 2 * MiB, 1), client.does(cmd::block_status, 0, 0)}) {
    EXPECT_FALSE(answer.simple());
    EXPECT_NE(answer.text, "");
  }
}

TEST(Protocol, S105_NoChunksWithoutNegotiation) {
  NbdHost host;
  WireClient& client = host.attached("disk", simple_replies);

  client.says(Request{.length = 64 * KiB, .cookie = 1}.bytes() +
              Request{.length = 99, .flags = 0xff, .cookie = 2}.bytes() +
              Request{.command = cmd::block_status, .length = 512, .cookie = 3}.bytes());

  EXPECT_FALSE(client.hears_the_rest().contains(be32(structured_magic)));
}

TEST(Protocol, S106_AQuickRequestOvertakesASlowOne) {
  NbdHost host;
  WireClient& client = host.attached();
  host.probe("disk").held = {"read 0+"};

  const std::uint64_t slow = client.sends({.offset = 0, .length = 10});
  const std::uint64_t quick = client.sends({.offset = 100, .length = 10});

  EXPECT_TRUE(client.answer(quick).good());
  EXPECT_EQ(client.hears_the_rest(), "");
  host.probe("disk").release();
  EXPECT_TRUE(client.answer(slow).good());
}

TEST(Protocol, S106_AnAnswerMayComeBetweenTheChunksOfAnother) {
  NbdHost host;
  host.put("disk", 0, pattern(8 * MiB));
  WireClient& client = host.attached();
  host.probe("disk").held = {"read 4194304+"};

  const std::uint64_t slow = client.sends({.offset = 0, .length = 8 * MiB});
  EXPECT_EQ(client.hears_message()->cookie, slow);
  const std::uint64_t quick = client.sends({.offset = 100, .length = 10});
  EXPECT_TRUE(client.answer(quick).good());
  host.probe("disk").release();

  EXPECT_EQ(difference(client.answer(slow).data, pattern(8 * MiB)), "");
}

TEST(Protocol, S106_EveryAnswerIsRightInWhateverOrderTheyCome) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    SCOPED_TRACE(seed);
    HostOptions options(sim::all_segments[seed % 2]);
    options.seed = seed;
    NbdHost host(options);
    const std::string content = pattern(1 * MiB);
    host.put("disk", 0, content);
    sim::Line line = host.line();
    line.to_client_max = 1 + host.world.scheduler.choose(100'000);
    WireClient& client = host.attached("disk", {.structured = seed % 3 != 0, .meta = false}, line);

    std::vector<std::pair<std::uint64_t, Range>> asked;
    for (int i = 0; i < 40; ++i) {
      const Range range{host.world.scheduler.choose(MiB / 2), host.world.scheduler.choose(50'000)};
      asked.emplace_back(client.sends({.offset = range.offset, .length = range.length}), range);
      if (host.world.scheduler.one_in(3)) host.world.scheduler.settle();
    }

    std::ranges::reverse(asked);
    for (const auto& [cookie, range] : asked) {
      EXPECT_EQ(difference(client.answer(cookie).data, content.substr(range.offset, range.length)),
                "");
    }
  }
}

TEST(Protocol, S107_AnUnknownCommandIsInvalidAndItsLengthIsNoPayload) {
  for (const Attach how : {simple_replies, Attach{}}) {
    NbdHost host;
    WireClient& client = host.attached("disk", how);

    for (const int unknown : {9, 10, 99, 0x100, 0xffff}) {
      EXPECT_EQ(client.does(static_cast<std::uint16_t>(unknown), 0, 0xffffffff).error, err::einval);
    }

    EXPECT_TRUE(client.does(cmd::flush, 0, 0).good());
  }
}

TEST(Protocol, S108_UnknownOrMisplacedFlagsAreInvalidAndTheStreamStaysInStep) {
  const std::map<std::uint16_t, unsigned> allowed = {
      {cmd::read, flag::fua | flag::df},
      {cmd::write, flag::fua},
      {cmd::flush, flag::fua},
      {cmd::trim, flag::fua},
      {cmd::cache, flag::fua},
      {cmd::write_zeroes, flag::fua | flag::no_hole | flag::fast_zero},
      {cmd::block_status, flag::fua | flag::req_one}};
  NbdHost host;
  WireClient& client = host.attached();

  for (const auto& [command, flags] : allowed) {
    for (unsigned bit = 0; bit < 16; ++bit) {
      Request request{.command = command,
                      .offset = 0,
                      .length = 512,
                      .flags = static_cast<std::uint16_t>(1U << bit)};
      if (command == cmd::write) request.payload = pattern(512);
      const bool good = (flags >> bit & 1) != 0;
      EXPECT_EQ(client.does(request).error, good ? err::ok : err::einval) << command << " " << bit;
    }
  }
  EXPECT_TRUE(client.reads(0, 512).good());
}

TEST(Protocol, S109_FuaIsAcceptedOnEveryCommand) {
  for (const std::string_view name : {"disk", "ro"}) {
    NbdHost host;
    WireClient& client = host.attached(name);

    for (const std::uint16_t command : {cmd::read, cmd::flush, cmd::cache, cmd::block_status}) {
      EXPECT_TRUE(client.does(command, 0, 512, flag::fua).good()) << command;
    }
    if (name == "ro") continue;
    EXPECT_TRUE(client.writes(0, "x", flag::fua).good());
    EXPECT_TRUE(client.does(cmd::trim, 0, 512, flag::fua).good());
    EXPECT_TRUE(client.does(cmd::write_zeroes, 0, 512, flag::fua).good());
  }
}

TEST(Protocol, S111_WhatWasNotAdvertisedIsRefusedAndCacheIsServed) {
  NbdHost host;
  WireClient& client = host.attached("ro");

  EXPECT_EQ(client.does(cmd::write_zeroes, 0, 512, flag::fast_zero).error, err::einval);
  EXPECT_FALSE(client.does(cmd::trim, 0, 512).good());
  EXPECT_FALSE(client.does(cmd::write_zeroes, 0, 512).good());
  EXPECT_TRUE(client.does(cmd::cache, 0, 512).good());
  EXPECT_TRUE(client.does(cmd::flush, 0, 0).good());
}

TEST(Protocol, S112_OutOfBoundsIsInvalidAndForWritesNoSpace) {
  for (const Attach how : {simple_replies, Attach{}}) {
    NbdHost host;
    WireClient& client = host.attached("", how);
    const std::uint64_t size = NbdHost::small_size;
    const Range outside[] = {{size, 1},     {size - 1, 2},   {size + 1, 0},
                             {0, size + 1}, {1ULL << 63, 1}, {~0ULL, 2},
                             {~0ULL, 1},    {~0ULL - 1, 1},  {~0ULL - 511, 512}};

    for (const Range range : outside) {
      for (const std::uint16_t command : {cmd::read, cmd::trim, cmd::cache, cmd::block_status}) {
        EXPECT_EQ(client.does(command, range.offset, range.length).error, err::einval);
      }
      EXPECT_EQ(client.writes(range.offset, pattern(range.length)).error, err::enospc);
      EXPECT_EQ(client.does(cmd::write_zeroes, range.offset, range.length).error, err::enospc);
    }

    EXPECT_TRUE(client.reads(size - 1, 1).good());
    EXPECT_TRUE(client.reads(size, 0).good());
    EXPECT_THAT(host.probe("default").calls, testing::ElementsAre("read 1048575+1"));
  }
}

TEST(Protocol, S113_WhatIsNotAlignedToTheNegotiatedBlockIsInvalid) {
  NbdHost host;
  WireClient& client = host.attached("block512", {.sized = true});

  for (const Range range : {Range{1, 512}, Range{0, 511}, Range{511, 513}, Range{0, 1}}) {
    for (const std::uint16_t command :
         {cmd::read, cmd::trim, cmd::cache, cmd::block_status, cmd::write_zeroes}) {
      EXPECT_EQ(client.does(command, range.offset, range.length).error, err::einval) << command;
    }
    EXPECT_EQ(client.writes(range.offset, pattern(range.length)).error, err::einval);
  }
  EXPECT_THAT(host.probe("block512").calls, IsEmpty());
}

TEST(Protocol, S114_AReadOnlyExportPermitsNoWrites) {
  for (const Attach how : {simple_replies, Attach{}}) {
    NbdHost host;
    host.put("ro", 0, pattern(512));
    WireClient& client = host.attached("ro", how);

    EXPECT_EQ(client.writes(0, "x").error, err::eperm);
    EXPECT_EQ(client.does(cmd::trim, 0, 512).error, err::eperm);
    EXPECT_EQ(client.does(cmd::write_zeroes, 0, 512).error, err::eperm);

    EXPECT_EQ(difference(client.reads(0, 512).data, pattern(512)), "");
  }
}

TEST(Protocol, S115_FlagsGoBeforeReadOnlyBeforeBoundsBeforeAlignmentBeforeLength) {
  NbdHost host;
  host.serve("ro4096", NbdHost::disk_size, false).alignment = 4096;
  host.serve("rw4096", NbdHost::disk_size).alignment = 4096;
  host.take_effect();
  WireClient& ro = host.attached("ro4096", {.sized = true});
  WireClient& rw = host.attached("rw4096", {.sized = true});
  const std::uint64_t end = NbdHost::disk_size;

  // an inapplicable flag, read-only, out of bounds, unaligned
  EXPECT_EQ(ro.writes(end - 1, "abc", flag::req_one).error, err::einval);
  EXPECT_EQ(ro.does(cmd::write_zeroes, 0, 4096, flag::fast_zero).error, err::einval);
  // read-only, out of bounds, unaligned
  EXPECT_EQ(ro.writes(end - 1, "abc").error, err::eperm);
  EXPECT_EQ(ro.does(cmd::trim, ~0ULL, 3).error, err::eperm);
  // out of bounds, unaligned, too long
  EXPECT_EQ(rw.writes(end - 1, "abc").error, err::enospc);
  EXPECT_EQ(rw.writes(end, pattern(33 * MiB)).error, err::enospc);
  EXPECT_EQ(rw.reads(end - 1, 65 * MiB).error, err::einval);
  // unaligned, too long
  EXPECT_EQ(rw.reads(1, 65 * MiB).error, err::einval);
  // too long
  EXPECT_EQ(rw.reads(0, 65 * MiB).error, err::eoverflow);
}

TEST(Protocol, S116_EveryFailureHasOneOfTheErrorsOfTheProtocol) {
  const std::map<Errc, std::uint32_t> expected = {{Errc::out_of_range, err::enospc},
                                                  {Errc::io_error, err::eio},
                                                  {Errc::no_space, err::enospc},
                                                  {Errc::read_only, err::eperm},
                                                  {Errc::permission_denied, err::eperm},
                                                  {Errc::not_supported, err::einval},
                                                  {Errc::invalid_argument, err::einval},
                                                  {Errc::corrupt, err::eio},
                                                  {Errc::busy, err::eio},
                                                  {Errc::timed_out, err::eio},
                                                  {Errc::canceled, err::eshutdown},
                                                  {Errc::shutting_down, err::eshutdown},
                                                  {Errc::connection_lost, err::eio}};
  for (const Attach how : {simple_replies, Attach{}}) {
    for (const auto& [code, wire] : expected) {
      NbdHost host;
      WireClient& client = host.attached("disk", how);
      host.probe("disk").failing = {{"write", code}, {"read", code}};

      EXPECT_EQ(client.writes(0, "x").error, wire) << to_string(code);
      EXPECT_EQ(client.reads(0, 1).error, code == Errc::out_of_range ? err::einval : wire)
          << to_string(code);
    }
  }
}

TEST(Protocol, S117_RareErrorsAreKeptForTheirCases) {
  NbdHost host;
  host.probe("disk").quick_zeroes = false;
  host.take_effect();
  WireClient& structured = host.attached();
  WireClient& simple = host.attached("disk", simple_replies);

  EXPECT_EQ(structured.reads(0, 64 * MiB + 1).error, err::eoverflow);
  EXPECT_EQ(structured.reads(0, 32 * MiB + 1, flag::df).error, err::eoverflow);
  EXPECT_EQ(simple.reads(0, 32 * MiB + 1).error, err::einval);
  EXPECT_EQ(structured.does(cmd::write_zeroes, 0, 512, flag::fast_zero).error, err::enotsup);
  EXPECT_EQ(structured.writes(0, pattern(33 * MiB)).error, err::einval);
}

TEST(Protocol, S118_DisconnectWaitsForWhatWasAskedBeforeAndIsNotAnswered) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    HostOptions options;
    options.seed = seed;
    NbdHost host(options);
    WireClient& client = host.attached();
    host.probe("disk").held = {"write"};

    const std::uint64_t write =
        client.sends({.command = cmd::write, .length = 3, .payload = "abc"});
    client.says(
        Request{.command = cmd::disc, .offset = 1, .length = 2, .flags = 0xffff, .cookie = 9}
            .bytes());
    client.says("whatever comes after it");
    EXPECT_FALSE(client.was_closed());
    host.probe("disk").release();

    EXPECT_TRUE(client.answer(write).good());
    EXPECT_EQ(client.hears_the_rest(), "");
    EXPECT_TRUE(client.was_closed());
    EXPECT_EQ(host.get("disk", {0, 3}), "abc");
    EXPECT_THAT(host.world.log.warnings, IsEmpty());
  }
}

TEST(Protocol, S118_ALongAnswerIsSentToItsEndBeforeDisconnecting) {
  NbdHost host;
  host.put("disk", 0, pattern(64 * MiB));
  WireClient& client = host.attached();

  const std::uint64_t read = client.sends({.length = 64 * MiB});
  client.says(Request{.command = cmd::disc}.bytes());

  EXPECT_EQ(difference(client.answer(read).data, pattern(64 * MiB)), "");
  EXPECT_TRUE(client.was_closed());
}

TEST(Protocol, S119_WhoLeavesWithoutDisconnectIsNoError) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    HostOptions options;
    options.seed = seed;
    NbdHost host(options);
    WireClient& client = host.attached();
    host.probe("disk").held = {"write"};
    client.sends({.command = cmd::write, .length = 3, .payload = "abc"});
    host.world.scheduler.settle();

    client.leaves();
    host.world.scheduler.settle();
    EXPECT_EQ(host.connections(), 1U);  // its write is under way
    host.probe("disk").release();

    EXPECT_TRUE(host.nobody_is_left());
    EXPECT_THAT(host.world.log.warnings, IsEmpty());
  }
}

TEST(Protocol, S119_WhoOnlyStopsSendingStillGetsTheAnswersAtOnce) {
  for (std::uint64_t seed = 0; seed < 5; ++seed) {
    HostOptions options;
    options.seed = seed;
    NbdHost host(options);
    host.put("disk", 0, pattern(20 * MiB));
    WireClient& client = host.attached();

    const std::uint64_t read = client.sends({.length = 20 * MiB});
    client.ends();
    const Clock::Duration before = host.now();

    EXPECT_EQ(difference(client.answer(read).data, pattern(20 * MiB)), "");
    EXPECT_TRUE(client.was_closed());
    EXPECT_EQ(host.now(), before);
  }
}

TEST(Protocol, S120_NoMoreRequestsAreReadThanTheLimitAllows) {
  NbdHost host;
  WireClient& client = host.attached();
  Probe& disk = host.probe("disk");
  disk.held = {"read"};

  std::vector<std::uint64_t> asked;
  for (int i = 0; i < 1000; ++i) asked.push_back(client.sends({.length = 1}));
  host.world.scheduler.settle();
  EXPECT_EQ(disk.waiting(), 256U);
  disk.release();

  for (const std::uint64_t cookie : asked) EXPECT_TRUE(client.answer(cookie).good());
}

TEST(Protocol, S120_MemoryOfAConnectionIsBoundedByBytes) {
  NbdHost host;
  WireClient& readers = host.attached("disk", simple_replies);
  WireClient& writers = host.attached();
  Probe& disk = host.probe("disk");
  disk.held = {"read", "write"};

  for (int i = 0; i < 10; ++i) readers.sends({.length = 32 * MiB});
  for (int i = 0; i < 10; ++i) {
    writers.sends({.command = cmd::write, .length = 32 * MiB, .payload = pattern(32 * MiB)});
  }
  host.world.scheduler.settle();

  EXPECT_EQ(disk.waiting(), 4U);
  EXPECT_LE(host.world.buffers.lent(), 128 * MiB + 2 * 256 * KiB);
}

TEST(Protocol, S120_WorkThatCopiesCountsItsCopies) {
  for (const std::uint16_t command :
       {cmd::cache, cmd::write_zeroes, cmd::block_status, cmd::read, cmd::write}) {
    NbdHost host;
    Probe& disk = host.probe("disk");
    disk.quick_zeroes = false;
    disk.alignment = 4096;
    disk.failing["prefetch"] = Errc::not_supported;
    host.take_effect();
    WireClient& client = host.attached("disk", simple_replies);
    disk.held = {"read", "write", "map"};

    for (std::uint64_t i = 0; i < 256; ++i) {
      Request request{.command = command, .offset = i * 1'000'001, .length = 1'000'000};
      if (command == cmd::write) request.payload = pattern(1'000'000);
      client.sends(request);
    }
    host.world.scheduler.settle();

    EXPECT_LE(host.world.buffers.lent(), 64 * MiB + 256 * KiB) << command;
  }
}

TEST(Protocol, S194_ResizeIsNotKnown) {
  NbdHost host;
  WireClient& client = host.attached();

  EXPECT_EQ(client.does(cmd::resize, 1 * MiB, 0).error, err::einval);

  EXPECT_EQ(client.reads(NbdHost::disk_size - 1, 1).data, zeroes(1));
}

}  // namespace
}  // namespace test
