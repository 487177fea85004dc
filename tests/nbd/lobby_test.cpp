// lobby_test.cpp - what the lobby says of its clients, to the daemon and in the log.
#include "tests/support/nbd_fixture.h"

namespace test {
namespace {

TEST(Lobby, IsEmptyWhenTheLastClientHasLeft) {
  NbdHost host;
  WireClient& attached = host.attached();
  WireClient& haggling = host.client();
  bool empty = false;
  const auto root = [](nbd::Lobby& lobby, bool& out) -> asio::awaitable<void> {
    co_await lobby.empty();
    out = true;
  };
  Gate gate;
  spawn(host.world.scheduler.executor(), gate.enter_anyway(), root(host.lobby, empty));

  host.world.scheduler.settle();
  EXPECT_FALSE(empty);
  attached.leaves();
  host.world.scheduler.settle();
  EXPECT_FALSE(empty);
  haggling.leaves();
  host.world.scheduler.settle();
  EXPECT_TRUE(empty);
}

HostOptions limited(const nbd::LobbyOptions& lobby) {
  HostOptions options;
  options.lobby = lobby;
  return options;
}

TEST(Lobby, TurnsAwayWhoHasTooManyConnectionsFromElsewhere) {
  NbdHost host;
  const sim::Line line = host.line_from("10.0.0.1");
  for (std::size_t i = 0; i < nbd::origin_max_default; ++i) host.attached("disk", {}, line);

  WireClient& one_too_many = host.client(line);
  WireClient& other = host.attached("disk", {}, host.line_from("10.0.0.2"));
  WireClient& local = host.attached();

  EXPECT_EQ(one_too_many.hears_the_rest(), "");
  EXPECT_TRUE(one_too_many.was_closed());
  EXPECT_TRUE(other.does(cmd::flush, 0, 0).good());
  EXPECT_TRUE(local.does(cmd::flush, 0, 0).good());
  EXPECT_EQ(host.lines_with("turned away").size(), 1U);
}

TEST(Lobby, LimitsThisMachineOnlyWhenTold) {
  nbd::LobbyOptions options;
  options.origin_max = 2;
  NbdHost host(limited(options));
  host.attached();
  host.attached();

  EXPECT_EQ(host.client().hears_the_rest(), "");
}

TEST(Lobby, GivesAPlaceToTheNextWhenOneLeaves) {
  nbd::LobbyOptions options;
  options.clients_max = 2;
  NbdHost host(limited(options));
  host.attached().leaves();
  host.attached();
  host.world.scheduler.settle();

  EXPECT_TRUE(host.attached().does(cmd::flush, 0, 0).good());
  EXPECT_EQ(host.client().hears_the_rest(), "");
  EXPECT_EQ(host.lobby.clients(), 2U);
}

TEST(Lobby, LetsAsManyHaggleAsItIsToldAndTheOldestGivesWay) {
  nbd::LobbyOptions options;
  options.guests_max = 2;
  NbdHost host(limited(options));
  WireClient& oldest = host.client();
  WireClient& older = host.client();

  WireClient& newest = host.client();

  EXPECT_EQ(newest.hears(18).size(), 18U);
  EXPECT_EQ(older.hears(18).size(), 18U);
  oldest.hears_the_rest();
  EXPECT_TRUE(oldest.was_closed());
  EXPECT_FALSE(older.was_closed());
}

TEST(Lobby, EndsWithWhoAsksForMoreThanItIsTold) {
  nbd::LobbyOptions options;
  options.options_max = 3;
  options.option_length_max = 8192;
  HostOptions few = limited(options);
  few.exports = {"disk"};
  NbdHost host(few);
  WireClient& chatty = host.client();
  WireClient& wordy = host.client();
  chatty.greets();
  wordy.greets();

  for (int i = 0; i < 3 + 2; ++i) EXPECT_EQ(chatty.asks(99).end(), rep::err_unsup);
  EXPECT_EQ(chatty.asks(99).end(), 0U);
  EXPECT_EQ(wordy.asks(99, std::string(8192, 'x')).end(), rep::err_unsup);
  EXPECT_EQ(wordy.asks(99, std::string(8193, 'x')).end(), 0U);

  EXPECT_TRUE(chatty.was_closed());
  EXPECT_TRUE(wordy.was_closed());
}

TEST(Lobby, TellsOfAFloodInAFewLines) {
  NbdHost host;
  const sim::Line line = host.line_from("10.0.0.1");
  for (std::size_t i = 0; i < nbd::origin_max_default; ++i) host.attached("disk", {}, line);
  const auto said = [&] { return host.lines_with("turned away").size(); };

  for (int i = 0; i < 1000; ++i) host.client(line);
  host.world.scheduler.settle();
  EXPECT_EQ(said(), 1U);
  WireClient& chatty = host.client();  // another kind has lines of its own
  chatty.says(std::string(4, '\xff'));
  host.world.scheduler.settle();
  EXPECT_EQ(host.lines_with("unknown client flags").size(), 1U);

  host.world.scheduler.pass(std::chrono::seconds(10));
  EXPECT_EQ(host.world.log.lines.back(),
            "999 more clients turned away in the last 10 s: too many connections are open");
  host.client(line);
  host.world.scheduler.pass(std::chrono::seconds(10));
  EXPECT_EQ(host.world.log.lines.back(),
            "1 more client turned away in the last 10 s: too many connections are open");
  EXPECT_EQ(said(), 3U);
  host.world.scheduler.pass(std::chrono::seconds(10));
  host.client(line);  // after a time without any, one is named again
  host.world.scheduler.settle();

  EXPECT_EQ(said(), 4U);
}

TEST(Lobby, TellsOfThoseWhoWereCountedWhenItStops) {
  nbd::LobbyOptions options;
  options.guests_max = 1;
  NbdHost host(limited(options));
  for (int i = 0; i < 10; ++i) host.client();

  host.begin_stop();
  host.world.scheduler.pass(std::chrono::seconds(1));

  EXPECT_EQ(host.lines_with("gives way to others").size(), 1U);
  EXPECT_EQ(host.lines_with("8 more clients turned away").size(), 1U);
}

// A quarter of what is allowed, all but its last byte.
std::string most_of_a_long_option() {
  std::string text = option(opt::info, std::string(1 << 20, '\0'));
  text.pop_back();
  return text;
}

TEST(Lobby, ReadsOnlySoManyLongOptionsAtATime) {
  NbdHost host;
  std::vector<WireClient*> wordy;
  for (int i = 0; i < 4; ++i) {
    wordy.push_back(&host.client());
    wordy.back()->greets();
    wordy.back()->says(most_of_a_long_option());
  }
  host.world.scheduler.settle();
  WireClient& late = host.client();
  late.greets();

  EXPECT_EQ(late.asks(opt::info, std::string(1 << 20, '\0')).end(), rep::err_too_big);
  EXPECT_TRUE(late.goes("disk").acked());  // short ones always have room
  wordy.front()->leaves();
  host.world.scheduler.settle();
  WireClient& next = host.client();
  next.greets();
  EXPECT_EQ(next.asks(opt::info, std::string(1 << 20, '\0')).end(), rep::err_invalid);
}

// What programs may read of the log's last line that has `part` in it.
std::string fields_of(const NbdHost& host, std::string_view part) {
  const sim::MemoryLog& log = host.world.log;
  for (std::size_t i = log.lines.size(); i-- > 0;) {
    if (log.lines[i].contains(part)) return log.about[i];
  }
  return "";
}

TEST(Log, SaysWhichClientExportAndRequestALineIsAbout) {
  NbdHost host;
  WireClient& client = host.attached("broken");

  EXPECT_EQ(client.reads(512 * KiB, 100).error, err::eio);
  client.leaves();
  host.world.scheduler.settle();

  const std::string peer = fields_of(host, ": attached to ");
  EXPECT_TRUE(peer.ends_with("|broken|-")) << peer;
  const std::string request = fields_of(host, ": 100 bytes at 524288: ");
  EXPECT_TRUE(request.contains("|broken|read 100 bytes at 524288, cookie ")) << request;
  EXPECT_EQ(fields_of(host, ": left "), peer);
}

}  // namespace
}  // namespace test
