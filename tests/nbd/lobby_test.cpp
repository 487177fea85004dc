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
