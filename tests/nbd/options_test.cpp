// options_test.cpp - option haggling in general, EXPORT_NAME, ABORT, STRUCTURED_REPLY and LIST.
// Spec: proto.md, "Newstyle negotiation", "Fixed newstyle negotiation", "Option types"; statements
// 19 to 42, 45, 69.
#include "tests/support/nbd_fixture.h"

namespace test {
namespace {

WireClient& greeted(NbdHost& host) {
  WireClient& client = host.client();
  client.greets();
  return client;
}

TEST(Protocol, S19_AWrongOptionMagicEndsTheConnection) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);
    std::string message = option(opt::list);
    message[7] = 'X';

    client.says(message);

    EXPECT_EQ(client.hears_the_rest(), "");
    EXPECT_TRUE(client.was_closed());
  }
}

TEST(Protocol, S20_UnknownOptionsAreUnsupportedOnceAndTheNextParses) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);

    for (const std::uint32_t unknown :
         {0U, opt::peek, opt::starttls, 12U, 99U, 0x7fffffffU, 0xffffffffU}) {
      for (const std::size_t length : {0U, 3U, 5000U}) {
        const OptionAnswer answer = client.asks(unknown, std::string(length, '\xee'));
        EXPECT_EQ(answer.end(), rep::err_unsup);
        EXPECT_EQ(answer.replies.size(), 1U);
      }
    }

    EXPECT_TRUE(client.goes("disk").acked());
  }
}

TEST(Protocol, S21_EveryReplyHasMagicOptionTypeAndTheRightLength) {
  NbdHost host;
  WireClient& client = greeted(host);
  const std::pair<std::uint32_t, std::string> asked[] = {
      {opt::list, ""},
      {77, "x"},
      {opt::info, info_data("disk", {inf::name})},
      {opt::structured_reply, ""},
      {opt::set_meta, meta_data("disk", {"base:allocation"})},
      {opt::list, "x"},
      {opt::abort, ""}};

  for (const auto& [number, data] : asked) {
    const OptionAnswer answer = client.asks(number, data);
    ASSERT_FALSE(answer.replies.empty());
    for (const OptionReply& reply : answer.replies) {
      EXPECT_EQ(reply.magic, 0x0003e889045565a9U);
      EXPECT_EQ(reply.option, number);
    }
  }
  EXPECT_EQ(client.hears_the_rest(), "");  // so every length was right
}

TEST(Protocol, S22_ExactlyOneFinalReplyComesAfterTheOthers) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);
    const std::pair<std::uint32_t, std::string> asked[] = {
        {opt::list, ""},
        {opt::info, info_data("disk", {inf::name, inf::description})},
        {opt::list_meta, meta_data("disk", {})},
        {opt::structured_reply, ""},
        {opt::info, "broken"}};

    for (const auto& [number, data] : asked) {
      const OptionAnswer answer = client.asks(number, data);
      EXPECT_TRUE(answer.replies.back().final()) << number;
      EXPECT_EQ(client.hears_the_rest(), "") << number;
    }
  }
}

TEST(Protocol, S23_AnErrorDoesNotEndTheHaggling) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);

    for (int round = 0; round < 10; ++round) {
      EXPECT_EQ(client.asks(opt::list, "data").end(), rep::err_invalid);
      EXPECT_EQ(client.infos("nobody").end(), rep::err_unknown);
      EXPECT_EQ(client.goes("nobody").end(), rep::err_unknown);
      EXPECT_EQ(client.sets_meta("disk", {}).end(), rep::err_invalid);
      EXPECT_EQ(client.asks(opt::go, "").end(), rep::err_invalid);
    }

    EXPECT_TRUE(client.goes("disk").acked());
  }
}

TEST(Protocol, S24_AnOptionOfMoreThanOneMebibyteEndsTheConnectionUnread) {
  for (const std::uint32_t number :
       {opt::export_name, opt::abort, opt::list, opt::go, opt::set_meta, 99U}) {
    for (const std::uint64_t length : {(1U << 20) + 1U, 1U << 31, 0xffffffffU}) {
      NbdHost host;
      WireClient& client = greeted(host);

      client.says("IHAVEOPT" + be32(number) + be32(length));

      EXPECT_EQ(client.hears_the_rest(), "");
      EXPECT_TRUE(client.was_closed());
    }
  }
}

TEST(Protocol, S24_AnOptionOfOneMebibyteIsReadAndAnswered) {
  NbdHost host;
  WireClient& client = greeted(host);

  EXPECT_EQ(client.asks(99, std::string(1 << 20, 'x')).end(), rep::err_unsup);
  EXPECT_EQ(client.asks(opt::go, std::string(1 << 20, 'x')).end(), rep::err_invalid);

  EXPECT_TRUE(client.goes("disk").acked());
}

TEST(Protocol, S25_TooManyOptionsEndTheConnection) {
  NbdHost host;
  WireClient& client = greeted(host);
  const std::size_t options_max = 256 + 2 * host.server.exports().size();

  for (std::size_t i = 0; i < options_max; ++i) {
    ASSERT_EQ(client.asks(99).end(), rep::err_unsup) << i;
  }

  EXPECT_EQ(client.asks(opt::list).end(), 0U);
  EXPECT_TRUE(client.was_closed());
}

TEST(Protocol, S25_TooManyBytesOfOptionsEndTheConnection) {
  NbdHost host;
  WireClient& client = greeted(host);
  const std::string data(1 << 20, 'x');

  int answered = 0;
  while (answered < 100 && client.asks(99, data).end() == rep::err_unsup) ++answered;

  EXPECT_EQ(answered, 16);
  EXPECT_TRUE(client.was_closed());
}

TEST(Protocol, S26_ExportNameOfAMissingExportClosesWithoutAByte) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);

    client.says(option(opt::export_name, "nobody"));

    EXPECT_EQ(client.hears_the_rest(), "");
    EXPECT_TRUE(client.was_closed());
  }
}

TEST(Protocol, S27_ExportNameIsAnsweredBySizeFlagsAndZeroesUnlessAgreedOtherwise) {
  for (const Segments segments : sim::all_segments) {
    for (const bool no_zeroes : {false, true}) {
      NbdHost host(segments);
      WireClient& client = host.client();
      client.greets(no_zeroes ? 3 : 1);

      client.says(option(opt::export_name, "disk"));
      const std::string heard = client.hears_the_rest();

      ASSERT_EQ(heard.size(), no_zeroes ? 10U : 134U);
      EXPECT_EQ(number(heard.substr(0, 8)), NbdHost::disk_size);
      EXPECT_EQ(number(heard.substr(8, 2)) & tflag::has_flags, tflag::has_flags);
      EXPECT_EQ(heard.substr(10), zeroes(heard.size() - 10));
      EXPECT_EQ(client.reads(0, 3).data, zeroes(3));
    }
  }
}

TEST(Protocol, S28_ExportNameIsNotAnsweredByAReplyPacket) {
  NbdHost host;
  WireClient& client = greeted(host);

  client.says(option(opt::export_name, "disk"));

  EXPECT_FALSE(client.hears_the_rest().contains(be64(option_reply_magic)));
}

TEST(Protocol, S29_ExportNameTakesItsLengthFromTheHeaderAndAtMost4096) {
  NbdHost host;
  WireClient& empty = greeted(host);
  WireClient& longest = greeted(host);
  WireClient& longer = greeted(host);

  empty.says(option(opt::export_name, ""));
  longest.says(option(opt::export_name, std::string(4096, 'n')));
  longer.says("IHAVEOPT" + be32(opt::export_name) + be32(4097));

  EXPECT_EQ(number(empty.hears(10).substr(0, 8)), NbdHost::small_size);
  EXPECT_TRUE(longest.was_closed());
  EXPECT_TRUE(longer.was_closed());
}

TEST(Protocol, S30_AbortIsAcknowledged) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);

    const OptionAnswer answer = client.asks(opt::abort);

    EXPECT_TRUE(answer.acked());
    EXPECT_EQ(answer.replies.size(), 1U);
    EXPECT_TRUE(client.was_closed());
  }
}

TEST(Protocol, S31_DataOfAbortIsIgnored) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);

    EXPECT_TRUE(client.asks(opt::abort, std::string(10000, 'x')).acked());
  }
}

TEST(Protocol, S32_AbortAndGoodbyeIsNoErrorInTheLog) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    HostOptions options;
    options.seed = seed;
    NbdHost host(options);
    WireClient& client = greeted(host);

    client.says(option(opt::abort));
    client.leaves();

    EXPECT_TRUE(host.nobody_is_left());
    EXPECT_THAT(host.world.log.warnings, testing::IsEmpty());
  }
}

TEST(Protocol, S34_StructuredRepliesCanBeAskedForOnce) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);

    EXPECT_TRUE(client.asks(opt::structured_reply).acked());
    EXPECT_EQ(client.asks(opt::structured_reply).end(), rep::err_invalid);

    EXPECT_NE(client.goes("disk").flags() & tflag::df, 0);  // they are still on
  }
}

TEST(Protocol, S35_WhileStoppingOptionsGetShutdownAndAbortGetsAck) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);
    client.structures();

    host.begin_stop();

    EXPECT_EQ(client.lists().end(), rep::err_shutdown);
    EXPECT_EQ(client.goes("disk").end(), rep::err_shutdown);
    EXPECT_EQ(client.asks(99, "data").end(), rep::err_shutdown);
    EXPECT_TRUE(client.asks(opt::abort).acked());
  }
}

TEST(Protocol, S36_OptionsSentAheadAreAnsweredInOrder) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);

    client.says(option(99) + option(opt::structured_reply) + option(opt::go, info_data("disk")));

    EXPECT_EQ(client.hears_option_answer().end(), rep::err_unsup);
    EXPECT_TRUE(client.hears_option_answer().acked());
    EXPECT_NE(client.hears_option_answer().flags() & tflag::df, 0);
  }
}

TEST(Protocol, S37_AfterGoAnOptionIsNoLongerOne) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = host.attached();

    client.says(option(opt::list, "at least a request's length"));

    EXPECT_EQ(client.hears_the_rest(), "");
    EXPECT_TRUE(client.was_closed());
  }
}

TEST(Protocol, S38_ErrorsCarryATextForPeople) {
  NbdHost host;
  WireClient& client = greeted(host);

  for (const OptionAnswer& answer : {client.asks(99), client.asks(opt::list, "x"),
                                     client.goes("nobody"), client.goes(std::string(5000, 'x')),
                                     client.sets_meta("disk", {}), client.asks(opt::go, "")}) {
    EXPECT_GE(answer.end(), 0x80000000U);
    EXPECT_NE(answer.text(), "");
    EXPECT_TRUE(is_utf8(answer.text()));
  }
}

TEST(Protocol, S39_ListWithDataIsInvalid) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);

    EXPECT_EQ(client.asks(opt::list, std::string(10, 'x')).end(), rep::err_invalid);

    EXPECT_TRUE(client.lists().acked());
  }
}

TEST(Protocol, S40_ListShowsEveryExportAndThenAcks) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);

    const OptionAnswer answer = client.lists();

    EXPECT_TRUE(answer.acked());
    EXPECT_EQ(answer.all(rep::server).size(), host.server.exports().size());
    EXPECT_EQ(answer.replies.size(), host.server.exports().size() + 1);
  }
}

TEST(Protocol, S40_WithoutExportsListIsJustAnAck) {
  sim::World world(1);
  nbd::Lobby lobby(world.home, nbd::LobbyOptions{}, {});
  sim::StreamPair pair = sim::stream_pair(world.scheduler, sim::Line{});
  WireClient client(world.scheduler, std::move(pair.client));
  lobby.receive(std::move(pair.server));
  client.greets();

  const OptionAnswer answer = client.lists();

  EXPECT_TRUE(answer.acked());
  EXPECT_EQ(answer.replies.size(), 1U);
  client.leaves();
  world.scheduler.settle();
}

TEST(Protocol, S41_AListedExportIsNameLengthNameDescription) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);

    const std::vector<std::string> listed = client.lists().all(rep::server);

    EXPECT_THAT(listed, testing::Contains(be32(4) + "disk" + "a large disk"));
    EXPECT_THAT(listed, testing::Contains(be32(0)));
    EXPECT_THAT(listed, testing::Contains(be32(8) + "block512"));
  }
}

TEST(Protocol, S42_ListingCanBeForbidden) {
  HostOptions options;
  options.lobby.listing = nbd::Listing::forbidden;
  NbdHost host(options);
  WireClient& client = greeted(host);

  const OptionAnswer answer = client.lists();

  EXPECT_EQ(answer.end(), rep::err_policy);
  EXPECT_EQ(answer.replies.size(), 1U);
  EXPECT_TRUE(client.goes("disk").acked());
}

TEST(Protocol, S45_AVeryLongListIsSentInPiecesWhileOthersAreServed) {
  NbdHost host;
  constexpr std::size_t count = 10'000;
  for (std::size_t i = 0; i < count; ++i) {
    std::string name = std::to_string(i);
    name.resize(4096, 'n');
    ASSERT_TRUE(host.server.add(*nbd::Export::create(name, "", nullptr)));
  }
  host.take_effect();
  sim::Line narrow;
  narrow.to_client_max = 256 * KiB;
  WireClient& lister = host.client(narrow);
  WireClient& other = host.attached();
  lister.greets();

  lister.says(option(opt::list));
  std::size_t heard = 0;
  for (int i = 0; i < 100; ++i) {
    heard += lister.hears(100'000).size();
    EXPECT_EQ(other.reads(0, 10).data, zeroes(10));
  }
  const std::string rest = lister.hears(50 * MiB);

  EXPECT_GT(heard + rest.size(), count * 4096);
  EXPECT_EQ(rest.substr(rest.size() - 20, 16),
            be64(option_reply_magic) + be32(opt::list) + be32(rep::ack));
}

TEST(Protocol, S69_StructuredReplyWithDataIsInvalid) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = greeted(host);

    EXPECT_EQ(client.asks(opt::structured_reply, "data").end(), rep::err_invalid);

    EXPECT_EQ(client.goes("disk").flags() & tflag::df, 0);  // and they are not on
  }
}

}  // namespace
}  // namespace test
