// strings_test.cpp - numbers and strings on the wire, and a stream without message boundaries.
// Spec: proto.md, "Conventions", "Protocol phases"; statements 1 to 6 and 8. Statement 9 is
// robustness_test.cpp.
#include "nbd/export.h"
#include "tests/support/nbd_fixture.h"

namespace test {
namespace {

TEST(Protocol, S1_NumbersAreBigEndian) {
  NbdHost host;
  WireClient& client = host.client();

  const std::string greeting = client.greets();
  const OptionAnswer answer = client.goes("disk");
  client.says(
      std::string("\x25\x60\x95\x13\0\0\0\x03\1\2\3\4\5\6\7\x08\0\0\0\0\0\0\0\0\0\0\0\0", 28));

  EXPECT_EQ(greeting.substr(16), std::string("\0\3", 2));
  EXPECT_EQ(answer.info(inf::size)->substr(0, 8), std::string("\0\0\0\0\x10\0\0\0", 8));
  EXPECT_EQ(client.hears(16), std::string("\x67\x44\x66\x98\0\0\0\0\1\2\3\4\5\6\7\x08", 16));
}

TEST(Protocol, S2_ANameLongerThan4096BytesIsInvalidAndTheNextOptionWorks) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = host.client();
    client.greets();
    client.structures();
    const std::string name(4097, 'n');

    EXPECT_EQ(client.infos(name).end(), rep::err_invalid);
    EXPECT_EQ(client.goes(name).end(), rep::err_invalid);
    EXPECT_EQ(client.sets_meta(name, {"base:allocation"}).end(), rep::err_invalid);
    EXPECT_EQ(client.asks(opt::list_meta, meta_data(name, {})).end(), rep::err_invalid);

    EXPECT_TRUE(client.goes("disk").acked());
  }
}

TEST(Protocol, S3_ANameOf4096BytesIsUnknownAndTheTextAboutItIsShort) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = host.client();
    client.greets();
    client.structures();
    const std::string name(4096, '\x01');  // each byte would take four to print

    for (const OptionAnswer& answer :
         {client.infos(name), client.goes(name), client.sets_meta(name, {"base:allocation"})}) {
      EXPECT_EQ(answer.end(), rep::err_unknown);
      EXPECT_LE(answer.text().size(), 4096U);
      EXPECT_NE(answer.text(), "");
    }
  }
}

TEST(Protocol, S3_ANameOf4096BytesCanBeServed) {
  NbdHost host;
  const std::string name(4096, 'n');
  nbd::Server& server = host.server;
  const graph::BlockBackend& view = server.find("disk")->view();
  graph::ViewOptions options("a long one");
  auto second = host.world.run(host.graph.attach(host.graph.find(view.node().name()), options));
  ASSERT_TRUE(server.add(*nbd::Export::create(name, std::string(4096, 'd'), *std::move(second))));
  host.take_effect();

  const OptionAnswer answer = [&] {
    WireClient& client = host.client();
    client.greets();
    return client.goes(name, {inf::name, inf::description});
  }();

  EXPECT_TRUE(answer.acked());
  EXPECT_EQ(answer.info(inf::name), name);
  EXPECT_EQ(answer.info(inf::description)->size(), 4096U);
}

TEST(Protocol, S4_ANameWithNulMatchesNothing) {
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    WireClient& client = host.client();
    client.greets();
    client.structures();
    const std::string name("disk\0", 5);

    EXPECT_EQ(client.infos(name).end(), rep::err_invalid);
    EXPECT_EQ(client.goes(name).end(), rep::err_invalid);
    EXPECT_EQ(client.sets_meta(name, {"base:allocation"}).end(), rep::err_invalid);
    EXPECT_EQ(client.goes(std::string("\0", 1)).end(), rep::err_invalid);

    EXPECT_TRUE(client.goes("disk").acked());
  }
}

TEST(Protocol, S4_ExportNameWithNulIsRefused) {
  NbdHost host;
  WireClient& client = host.client();
  client.greets();

  client.says(option(opt::export_name, std::string("disk\0", 5)));

  EXPECT_EQ(client.hears_the_rest(), "");
  EXPECT_TRUE(client.was_closed());
}

TEST(Protocol, S5_InvalidUtf8IsUnknownAndNeverEchoedRaw) {
  for (const std::string_view name : {"\xff\xfe", "disk\x80", "\xc0\xaf", "\xed\xa0\x80",
                                      "\xf4\x90\x80\x80", "a\x1b[2J\n", "\xc2\x9b"}) {
    NbdHost host;
    WireClient& client = host.client();
    WireClient& another = host.client();
    client.greets();
    client.structures();
    another.greets();

    const OptionAnswer answer = client.goes(name);
    const OptionAnswer queried = client.sets_meta("disk", {std::string(name)});
    another.says(option(opt::export_name, name));
    host.world.scheduler.settle();

    EXPECT_EQ(answer.end(), rep::err_unknown);
    EXPECT_FALSE(answer.text().contains(name));
    EXPECT_TRUE(is_utf8(answer.text()));
    EXPECT_TRUE(queried.acked());
    EXPECT_TRUE(another.was_closed());
    EXPECT_THAT(host.lines_with(name), testing::IsEmpty());
  }
}

TEST(Protocol, S6_ConfiguredTextsThatCanNotStandOnTheWireAreRefused) {
  const std::string_view nul("a\0b", 3);
  for (const std::string& text : {std::string(4097, 'x'), std::string(nul), std::string("\xff"),
                                  std::string("\xed\xa0\x80")}) {
    const auto named = nbd::Export::create(text, "", nullptr);
    const auto described = nbd::Export::create("name", text, nullptr);

    ASSERT_FALSE(named);
    EXPECT_EQ(named.error().code, Errc::invalid_argument);
    EXPECT_TRUE(is_utf8(named.error().message));
    ASSERT_FALSE(described);
    EXPECT_EQ(described.error().code, Errc::invalid_argument);
  }
}

TEST(Protocol, S6_EveryErrorTextIsUtf8OfAtMost4096Bytes) {
  NbdHost host;
  WireClient& client = host.attached();
  host.probe("disk").failing["write"] = Errc::io_error;

  for (const Answer& answer :
       {client.does(99, 0, 0), client.reads(0, 10, 0xffff), client.reads(~0ULL, 0xffffffff),
        client.writes(0, "x"), client.reads(0, 128 * MiB)}) {
    EXPECT_FALSE(answer.good());
    EXPECT_NE(answer.text, "");
    EXPECT_LE(answer.text.size(), 4096U);
    EXPECT_TRUE(is_utf8(answer.text));
  }
}

TEST(Protocol, S8_AWholeConversationDoesNotDependOnSegments) {
  const std::string messages[] = {
      be32(3) + option(opt::list) + option(opt::structured_reply) +
          option(opt::set_meta, meta_data("disk", {"base:allocation"})) +
          option(opt::go, info_data("disk", {inf::block_size, inf::name})),
      Request{cmd::read, 10, 5000, 0, {}, 1}.bytes(),
      Request{cmd::write, 100, 3000, 0, pattern(3000, 7), 2}.bytes(),
      Request{cmd::read, 0, 8192, flag::df, {}, 3}.bytes(),
      Request{cmd::block_status, 0, 1 * MiB, 0, {}, 4}.bytes(),
      Request{cmd::disc, 0, 0, 0, {}, 5}.bytes()};
  std::vector<std::string> conversations;
  for (const Segments segments : sim::all_segments) {
    NbdHost host(segments);
    host.put("disk", 0, pattern(8192));
    WireClient& client = host.client();

    std::string& heard = conversations.emplace_back();
    for (const std::string& message : messages) {
      EXPECT_TRUE(client.says(message));
      heard += client.hears_the_rest();
    }

    EXPECT_TRUE(client.was_closed());
  }
  EXPECT_GT(conversations[0].size(), 13000U);
  EXPECT_EQ(difference(conversations[0], conversations[1]), "");
  EXPECT_EQ(difference(conversations[0], conversations[2]), "");
}

}  // namespace
}  // namespace test
