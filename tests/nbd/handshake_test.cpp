// handshake_test.cpp - who speaks first, and who may stay.
// Spec: proto.md, "Newstyle negotiation", "Handshake flags", "Client flags"; statements 10 to 18.
#include "tests/support/nbd_fixture.h"

namespace test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(Protocol, S10_TheServerSpeaksFirstAndThenWaits) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = host.client();

    const std::string heard = client.hears_the_rest();

    EXPECT_EQ(heard.substr(0, 16), "NBDMAGICIHAVEOPT");
    EXPECT_EQ(heard.size(), 18U);
  }
}

TEST(Protocol, S11_OffersFixedNewstyleAndNoZeroesAndNothingElse) {
  NbdHost host;

  const std::string heard = host.client().hears(18);

  EXPECT_EQ(number(heard.substr(16)), 3U);
}

TEST(Protocol, S12_AnUnknownClientFlagEndsTheConnection) {
  for (const Segments segments : sim::all_segments) {
    for (unsigned bit = 2; bit < 32; ++bit) {
      NbdHost host(segments);
      WireClient& client = host.client();

      client.greets(3U | 1U << bit);

      EXPECT_EQ(client.hears_the_rest(), "") << bit;
      EXPECT_TRUE(client.was_closed()) << bit;
    }
  }
}

TEST(Protocol, S14_AClientWithoutFixedNewstyleGetsExportNameAndNothingElse) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& old = host.client();
    WireClient& pretender = host.client();

    old.greets(0);
    old.says(option(opt::export_name, "disk"));
    pretender.greets(0);
    pretender.says(option(opt::list));

    EXPECT_EQ(number(old.hears(134).substr(0, 8)), NbdHost::disk_size);
    EXPECT_TRUE(old.does(cmd::flush, 0, 0).good());
    EXPECT_EQ(pretender.hears_the_rest(), "");
    EXPECT_TRUE(pretender.was_closed());
  }
}

TEST(Protocol, S15_TheGreetingIsNotOldstyle) {
  NbdHost host;

  const std::string heard = host.client().hears(18);

  EXPECT_NE(number(heard.substr(8, 8)), 0x00420281861253U);
}

TEST(Protocol, S16_APortProbeIsNoErrorInTheLog) {
  for (const bool heard : {false, true}) {
    NbdHost host;
    WireClient& probe = host.client();

    if (heard) probe.hears(18);
    probe.leaves();

    EXPECT_TRUE(host.nobody_is_left());
    EXPECT_THAT(host.world.log.warnings, testing::IsEmpty());
  }
}

TEST(Protocol, S17_WhoDoesNotFinishTheHandshakeInTimeIsDropped) {
  NbdHost host;
  WireClient& client = host.client();
  client.greets();
  client.lists();

  host.world.scheduler.pass(seconds(9));
  EXPECT_FALSE(client.was_closed());
  host.world.scheduler.pass(seconds(1));

  EXPECT_TRUE(client.was_closed());
  EXPECT_TRUE(host.nobody_is_left());
}

TEST(Protocol, S17_ProgressOfOneByteDoesNotRestartTheDeadline) {
  NbdHost host;
  WireClient& client = host.client();
  client.greets();
  const std::string message = option(opt::list, std::string(100, 'x'));

  for (std::size_t i = 0; i < 20; ++i) {
    client.says(message.substr(i, 1));
    host.world.scheduler.pass(milliseconds(500));
  }

  EXPECT_TRUE(client.was_closed());
}

TEST(Protocol, S17_WhoDoesNotReadTheRepliesIsDroppedToo) {
  NbdHost host;
  for (int i = 0; i < 100; ++i) {
    host.serve("e" + std::to_string(i), 512, true, std::string(4096, 'd'));
  }
  sim::Line narrow;
  narrow.to_client_max = 1000;
  WireClient& client = host.client(narrow);
  client.greets();
  client.says(option(opt::list));

  host.world.scheduler.pass(seconds(10));

  EXPECT_TRUE(host.nobody_is_left());
}

TEST(Protocol, S17_TheDeadlineIsOverOnceTheClientIsAttached) {
  NbdHost host;
  WireClient& client = host.attached();

  host.world.scheduler.pass(std::chrono::hours(24));

  EXPECT_EQ(client.reads(0, 10).data, zeroes(10));
}

TEST(Protocol, S18_IdleClientsThatNeverNegotiateKeepNobodyOut) {
  NbdHost host;
  WireClient& early = host.attached();
  for (int i = 0; i < 1000; ++i) host.client();

  WireClient& late = host.attached();

  EXPECT_TRUE(early.does(cmd::flush, 0, 0).good());
  EXPECT_TRUE(late.does(cmd::flush, 0, 0).good());
  host.world.scheduler.settle();
  EXPECT_LE(host.connections(), 2U + host.lobby.options().guests_max);
}

TEST(Protocol, S18_AttachedClientsAreNotDrivenOutByNewOnes) {
  HostOptions options;
  options.lobby.clients_max = 10;
  NbdHost host(options);
  for (int i = 0; i < 10; ++i) host.attached();

  WireClient& one_too_many = host.client();

  EXPECT_EQ(one_too_many.hears_the_rest(), "");
  EXPECT_TRUE(one_too_many.was_closed());
  for (std::size_t i = 0; i < 10; ++i) {
    EXPECT_TRUE(host.clients[i]->does(cmd::flush, 0, 0).good());
  }
}

}  // namespace
}  // namespace test
