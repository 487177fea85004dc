// termination_test.cpp - the server stops; and what is no reason to close a connection.
// Spec: proto.md, "Terminating the transmission phase"; statements 176 to 178.
#include "tests/support/nbd_fixture.h"

namespace test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::IsEmpty;

TEST(Protocol, S176_StoppingTurnsNewClientsAway) {
  NbdHost host;
  host.attached();
  host.begin_stop();
  host.world.scheduler.settle();

  WireClient& late = host.client();

  EXPECT_EQ(late.hears_the_rest(), "");
  EXPECT_TRUE(late.was_closed());
}

TEST(Protocol, S176_RequestsInFlightEndAndFurtherOnesGetShutdown) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    SCOPED_TRACE(seed);
    HostOptions options;
    options.seed = seed;
    NbdHost host(options);
    WireClient& client = host.attached();
    Probe& disk = host.probe("disk");
    disk.held = {"write"};
    const std::uint64_t before =
        client.sends({.command = cmd::write, .length = 3, .payload = "abc"});
    host.world.scheduler.settle();

    host.begin_stop();
    host.world.scheduler.settle();
    EXPECT_EQ(client.reads(0, 512).error, err::eshutdown);
    EXPECT_EQ(client.writes(0, pattern(100'000)).error, err::eshutdown);
    EXPECT_EQ(client.does(cmd::flush, 0, 0).error, err::eshutdown);
    host.world.scheduler.pass(seconds(5));
    EXPECT_FALSE(host.stopped());
    EXPECT_EQ(client.reads(0, 512).error, err::eshutdown);
    disk.release();

    EXPECT_TRUE(client.answer(before).good());
    EXPECT_EQ(client.hears_the_rest(), "");
    EXPECT_TRUE(client.was_closed());
    EXPECT_TRUE(host.stopped());
    EXPECT_EQ(host.get("disk", {0, 3}), "abc");
  }
}

TEST(Protocol, S176_RequestsOnTheirWayWhenItBeginsAreAnswered) {
  NbdHost host;
  WireClient& client = host.attached();

  host.begin_stop();
  host.world.scheduler.pass(milliseconds(10));
  const Answer answer = client.reads(0, 512);
  host.world.scheduler.pass(milliseconds(100));

  EXPECT_EQ(answer.error, err::eshutdown);
  EXPECT_TRUE(client.was_closed());
}

TEST(Protocol, S176_IdleClientsDoNotDelayTheEnd) {
  NbdHost host;
  for (int i = 0; i < 20; ++i) host.attached();
  for (int i = 0; i < 20; ++i) host.client();

  host.begin_stop();
  host.world.scheduler.pass(milliseconds(200));

  EXPECT_TRUE(host.stopped());
  EXPECT_THAT(host.world.log.warnings, IsEmpty());
  for (const auto& client : host.clients) {
    client->hears_the_rest();
    EXPECT_TRUE(client->was_closed());
  }
}

TEST(Protocol, S176_AFloodOfRequestsDoesNotDelayTheEnd) {
  NbdHost host;
  WireClient& client = host.attached();
  host.begin_stop();
  host.world.scheduler.pass(milliseconds(60));

  int answered = 0;
  while (client.does(cmd::flush, 0, 0).error == err::eshutdown && answered < 1000) ++answered;

  EXPECT_LT(answered, 1000);
  EXPECT_TRUE(host.stopped());
}

TEST(Protocol, S177_WhoTakesTooLongIsCutOff) {
  NbdHost host;
  host.put("disk", 0, pattern(4 * MiB));
  sim::Line narrow;
  narrow.to_client_max = 1000;
  WireClient& deaf = host.attached("disk", {}, narrow);
  WireClient& half = host.attached();
  WireClient& slow = host.attached();
  deaf.sends({.length = 4 * MiB});
  half.says(Request{.command = cmd::write, .length = 1000, .payload = "not all of it"}.bytes());
  slow.says(std::string("\x25\x60\x95", 3));
  host.world.scheduler.settle();

  host.begin_stop();
  host.world.scheduler.pass(seconds(9));
  EXPECT_FALSE(host.stopped());
  host.world.scheduler.pass(seconds(2));

  EXPECT_TRUE(host.stopped());
  EXPECT_TRUE(half.was_closed());
  EXPECT_EQ(host.lines_with("cut off").size(), 2U);
}

TEST(Protocol, S177_AHungMediumCostsTheClientsAtTheDeadline) {
  NbdHost host;
  WireClient& client = host.attached();
  host.probe("disk").held = {"write"};
  client.sends({.command = cmd::write, .length = 3, .payload = "abc"});
  host.world.scheduler.settle();

  host.begin_stop();
  host.world.scheduler.pass(seconds(11));

  EXPECT_TRUE(client.was_closed());
  host.probe("disk").release();
  host.world.scheduler.settle();
  EXPECT_TRUE(host.stopped());
}

TEST(Protocol, S178_NoRequestThatIsMerelyWrongCostsTheConnection) {
  for (const Attach how : {simple_replies, Attach{}, Attach{.sized = true}}) {
    for (const std::string_view name : {"disk", "ro", "block4096", "broken"}) {
      NbdHost host;
      WireClient& client = host.attached(name, how);

      for (std::uint16_t command = 0; command < 12; ++command) {
        if (command == cmd::disc) continue;
        for (const Range range :
             {Range{0, 0}, Range{1, 1}, Range{512 * KiB, 4096}, Range{0, 33 * MiB}, Range{~0ULL, 5},
              Range{1ULL << 40, 0}, Range{0, command == cmd::write ? 100 : 0xffffffff}}) {
          for (const unsigned bits : {0U, 1U, 2U, 4U, 8U, 16U, 32U, 0xffffU}) {
            const auto flags = static_cast<std::uint16_t>(bits);
            Request request{
                .command = command, .offset = range.offset, .length = range.length, .flags = flags};
            if (command == cmd::write) request.payload = zeroes(range.length);
            if (range.length > 1 * MiB && flags > 1) continue;  // enough is enough
            EXPECT_NE(client.does(request).error, err::unanswered) << command;
          }
        }
      }

      EXPECT_FALSE(client.was_closed());
      EXPECT_TRUE(client.does(cmd::flush, 0, 0).good());
    }
  }
}

}  // namespace
}  // namespace test
