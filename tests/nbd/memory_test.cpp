// memory_test.cpp - what connections do when the memory that they share runs out: who wants much
// waits, who wants little goes on, and who hoards is cut off.
#include "tests/support/nbd_fixture.h"

namespace test {
namespace {

using std::chrono::seconds;

// 8 MiB for all, of which each of 4 connections owns 64 KiB.
HostOptions narrow() {
  HostOptions options;
  options.memory = 8 * MiB;
  options.server.in_flight.own_bytes = 64 * KiB;
  return options;
}

// Says that it will write 8 MiB, and does not.
void hoard(WireClient& client) {
  Request request;
  request.command = cmd::write;
  request.length = 8 * MiB;
  client.says(request.bytes());
}

TEST(Memory, WhoHoardsItStopsNobodyWhoWantsLittle) {
  NbdHost host(narrow());
  hoard(host.attached());
  WireClient& modest = host.attached();

  for (std::uint64_t at = 0; at < 1 * MiB; at += 32 * KiB) {
    ASSERT_TRUE(modest.writes(at, pattern(32 * KiB)).good()) << at;
    ASSERT_EQ(difference(modest.reads(at, 32 * KiB).data, pattern(32 * KiB)), "");
  }
  EXPECT_FALSE(host.clients.front()->was_closed());  // nobody waits for its memory
}

TEST(Memory, WhoHoardsItIsCutOffWhenOthersWait) {
  NbdHost host(narrow());
  WireClient& hoarder = host.attached();
  hoard(hoarder);
  WireClient& honest = host.attached();

  const std::uint64_t waiting = honest.sends({cmd::read, 0, 4 * MiB, 0, {}});
  host.world.scheduler.settle();
  EXPECT_FALSE(hoarder.was_closed());
  host.world.scheduler.pass(seconds(5));

  EXPECT_TRUE(hoarder.was_closed());
  EXPECT_EQ(host.lines_with("that others wait for").size(), 1U);
  EXPECT_TRUE(honest.answer(waiting).good());
}

TEST(Memory, WhoIsSlowAndGoesOnIsNotCutOff) {
  NbdHost host(narrow());
  WireClient& slow = host.attached();
  hoard(slow);
  WireClient& other = host.attached();
  other.sends({cmd::read, 0, 4 * MiB, 0, {}});

  for (int i = 0; i < 50; ++i) {
    slow.says(pattern(128 * KiB));
    host.world.scheduler.pass(seconds(1));
  }

  EXPECT_FALSE(slow.was_closed());
}

TEST(Memory, WhoDripsIsCutOffWhenOthersWait) {
  NbdHost host(narrow());
  WireClient& dripping = host.attached();
  hoard(dripping);
  for (int i = 0; i < 10; ++i) {
    dripping.says("x");
    host.world.scheduler.pass(seconds(2));
  }
  EXPECT_FALSE(dripping.was_closed());  // nobody waits
  WireClient& honest = host.attached();
  const std::uint64_t waiting = honest.sends({cmd::read, 0, 4 * MiB, 0, {}});

  for (int i = 0; i < 5; ++i) {
    dripping.says("x");
    host.world.scheduler.pass(seconds(1));
  }

  EXPECT_TRUE(dripping.was_closed());
  EXPECT_TRUE(honest.answer(waiting).good());
}

TEST(Memory, OneSlowMomentIsForgiven) {
  NbdHost host(narrow());
  WireClient& bumpy = host.attached();
  hoard(bumpy);
  host.attached().sends({cmd::read, 0, 4 * MiB, 0, {}});

  for (int i = 0; i < 20; ++i) {
    bumpy.says(pattern(256 * KiB));
    host.world.scheduler.pass(seconds(2));
  }

  EXPECT_FALSE(bumpy.was_closed());
}

TEST(Memory, AnswersWithALongTextTakeTheirShare) {
  NbdHost host(narrow());
  sim::Line narrow_line = host.line();
  narrow_line.to_client_max = 4 * KiB;
  WireClient& deaf = host.attached("disk", {}, narrow_line);

  for (int i = 0; i < 256; ++i) deaf.sends({cmd::read, NbdHost::disk_size, 512, 0, {}});
  host.world.scheduler.settle();

  EXPECT_GT(host.world.buffers.lent(), 512 * KiB);
  EXPECT_LE(host.world.buffers.lent(), host.memory.used() + 64 * KiB);
}

TEST(Memory, AnswersWithAShortTextTakeNone) {
  NbdHost host(narrow());
  sim::Line narrow_line = host.line();
  narrow_line.to_client_max = 1 * KiB;
  WireClient& deaf = host.attached("ro", {}, narrow_line);

  for (int i = 0; i < 200; ++i) deaf.sends({cmd::trim, 0, 512, 0, {}});
  host.world.scheduler.settle();

  EXPECT_EQ(host.world.buffers.lent(), 0U);
}

TEST(Memory, WhoWaitsForItKeepsLittleOfWhatItHasReadAhead) {
  NbdHost host(narrow());
  for (int i = 0; i < 2; ++i) hoard(host.attached());  // the second one waits for the first
  host.world.scheduler.settle();
  const std::size_t before = host.world.buffers.lent();
  std::string asked;
  for (int i = 0; i < 4000; ++i) {  // 112 KiB of them
    Request request;
    request.length = 128 * KiB;  // more than its own share
    request.cookie = static_cast<std::uint64_t>(i) + 1;
    asked += request.bytes();
  }

  host.attached().says(asked);
  host.world.scheduler.settle();

  EXPECT_GT(host.world.buffers.lent(), before);
  EXPECT_LE(host.world.buffers.lent() - before, 16 * KiB);
}

TEST(Memory, WhoDoesNotReadItsRepliesLosesThemWhenOthersWait) {
  NbdHost host(narrow());
  sim::Line narrow_line = host.line();
  narrow_line.to_client_max = 64 * KiB;
  WireClient& deaf = host.attached("disk", simple_replies, narrow_line);
  deaf.sends({cmd::read, 0, 8 * MiB, 0, {}});
  host.world.scheduler.pass(seconds(60));
  EXPECT_EQ(host.connections(), 1U);  // nobody else wants its memory
  WireClient& honest = host.attached();

  const std::uint64_t waiting = honest.sends({cmd::read, 0, 4 * MiB, 0, {}});
  host.world.scheduler.pass(seconds(5));

  EXPECT_EQ(host.lines_with("that others wait for").size(), 1U);
  EXPECT_TRUE(honest.answer(waiting).good());
}

TEST(Memory, ALongAnswerThatNobodyReadsTakesNoMoreThanItsShare) {
  NbdHost host(narrow());
  sim::Line narrow_line = host.line();
  narrow_line.to_client_max = 64 * KiB;
  WireClient& writer = host.attached();
  for (std::uint64_t at = 0; at < 32 * MiB; at += 4 * MiB) {
    ASSERT_TRUE(writer.writes(at, pattern(4 * MiB)).good()) << at;  // zeroes would need no memory
  }
  WireClient& deaf = host.attached("disk", {}, narrow_line);

  deaf.sends({cmd::read, 0, 32 * MiB, 0, {}});
  host.world.scheduler.settle();

  EXPECT_LE(host.world.buffers.lent(), host.memory.used() + 64 * KiB);
}

TEST(Memory, AFloodLargerThanAllOfItIsSlowedNotRefused) {
  NbdHost host(narrow());
  constexpr std::size_t size = 1 * MiB;
  std::vector<std::pair<WireClient*, std::uint64_t>> asked;
  for (int i = 0; i < 4; ++i) host.attached();

  for (std::uint64_t i = 0; i < 16; ++i) {
    for (const auto& client : host.clients) {
      asked.emplace_back(client.get(), client->sends({cmd::read, 0, size, 0, {}}));
    }
  }

  for (const auto& [client, cookie] : asked) {
    EXPECT_TRUE(client->answer(cookie).good()) << cookie;
    EXPECT_LE(host.memory.used(), host.memory.limit());
  }
}

TEST(Memory, AConnectionThatWaitsForMoreOfARequestHoldsNone) {
  NbdHost host;
  for (int i = 0; i < 10; ++i) host.attached().says(Request{}.bytes().substr(0, 27));
  host.world.scheduler.settle();

  EXPECT_EQ(host.world.buffers.lent(), 0U);
}

}  // namespace
}  // namespace test
