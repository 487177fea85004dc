#include "src/listeners.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <asio/io_context.hpp>
#include <initializer_list>
#include <optional>

#include "graph/base/steady_clock.h"
#include "tests/support/world.h"

namespace app {
namespace {

// A socket of 127.0.0.1 as a service manager would hand it over.
InheritedSocket listening_socket(std::string name) {
  Descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_in loopback{};
  loopback.sin_family = AF_INET;
  loopback.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&loopback), sizeof loopback), 0);
  EXPECT_EQ(::listen(socket.get(), 1), 0);
  return {std::move(socket), std::move(name)};
}

// A client of 127.0.0.N.
Descriptor call(const Address& address, std::uint32_t n) {
  Descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl((127U << 24) + n);
  EXPECT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&name), sizeof name), 0);
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  name.sin_port = htons(static_cast<std::uint16_t>(address.port));
  EXPECT_EQ(::connect(socket.get(), reinterpret_cast<sockaddr*>(&name), sizeof name), 0);
  return socket;
}

// An event loop with listeners on it, and what they accepted.
class Door : public testing::Test {
 protected:
  void TearDown() override {
    const auto root = [](Listeners& all) -> asio::awaitable<void> { co_await all.stop(); };
    spawn(loop.get_executor(), gate.enter_anyway(), root(listeners));
    settle();
  }
  // Everything that can happen without somebody outside.
  void settle() {
    loop.restart();
    loop.poll();
  }
  Result<> open(std::vector<Listen> wanted, std::vector<InheritedSocket> inherited = {}) {
    const auto root = [](Task<> task, std::optional<Result<>>& out) -> asio::awaitable<void> {
      out.emplace(co_await std::move(task));
    };
    std::optional<Result<>> result;
    spawn(loop.get_executor(), gate.enter_anyway(),
          root(listeners.open(std::move(wanted), std::move(inherited)), result));
    loop.restart();
    loop.run();
    listeners.start();
    settle();
    return *result;
  }
  static Listen at(std::string_view address) { return {*parse_address(address), {}}; }
  static Listen for_networks(std::string_view address,
                             std::initializer_list<const char*> networks) {
    Listen listen = at(address);
    listen.allow.emplace();
    for (const char* network : networks) {
      listen.allow->networks.push_back(*Network::parse(network));
    }
    return listen;
  }
  // What a client of 127.0.0.N sees: true when it was accepted, false when it was left.
  bool enters(std::uint32_t n) {
    const std::size_t before = accepted.size();
    const Descriptor client = call(listeners.addresses().at(0), n);
    settle();
    char byte = 0;
    const bool left = ::recv(client.get(), &byte, 1, MSG_DONTWAIT) == 0;
    EXPECT_EQ(left, accepted.size() == before);
    return !left;
  }

  asio::io_context loop{1};
  Gate gate;
  SteadyClock clock{loop.get_executor()};
  sim::NoEngine engine;
  BufferPool buffers;
  sim::MemoryLog log;
  const std::unique_ptr<Helpers> helpers = make_helpers();
  Home home{loop.get_executor(), clock, engine, buffers, log, *helpers};
  std::vector<std::string> accepted;
  std::vector<std::unique_ptr<Stream>> streams;
  Listeners listeners{home, std::chrono::seconds(0), [this](std::unique_ptr<Stream> stream) {
                        accepted.push_back(stream->peer());
                        streams.push_back(std::move(stream));
                      }};
};

TEST_F(Door, LetsInWhoIsAllowed) {
  ASSERT_TRUE(open({for_networks("tcp:127.0.0.1:0", {"127.0.0.2", "127.0.1.0/24"})}));

  EXPECT_TRUE(enters(2));
  EXPECT_TRUE(enters(0x101));
  EXPECT_FALSE(enters(3));
  EXPECT_FALSE(enters(20));
  EXPECT_FALSE(enters(0x201));
}

TEST_F(Door, NamesWhoIsRefused) {
  ASSERT_TRUE(open({for_networks("tcp:127.0.0.1:0", {"127.0.0.2"})}));

  EXPECT_FALSE(enters(3));

  const std::string& line = log.lines.back();
  EXPECT_TRUE(line.starts_with("client 127.0.0.3:")) << line;
  EXPECT_TRUE(
      line.ends_with(": refused, " + listeners.addresses().at(0).text() + " does not allow it"))
      << line;
}

TEST_F(Door, TakesNewListsWhileItListens) {
  ASSERT_TRUE(open({for_networks("tcp:127.0.0.1:0", {"127.0.0.2"})}));
  ASSERT_FALSE(enters(3));

  listeners.set_allow({for_networks("tcp:127.0.0.1:0", {"127.0.0.3"})});
  EXPECT_TRUE(enters(3));
  EXPECT_FALSE(enters(2));

  listeners.set_allow({at("tcp:127.0.0.1:0")});
  EXPECT_TRUE(enters(2));
}

TEST_F(Door, UsesWhatWasHandedOverWhenNothingElseIsWanted) {
  std::vector<InheritedSocket> inherited;
  inherited.push_back(listening_socket("nbd.socket"));

  ASSERT_TRUE(open({}, std::move(inherited)));

  EXPECT_EQ(listeners.addresses().size(), 1u);
  EXPECT_TRUE(enters(1));
}

TEST_F(Door, FindsWhatWasHandedOverByItsName) {
  std::vector<InheritedSocket> inherited;
  inherited.push_back(listening_socket("other"));
  inherited.push_back(listening_socket("nbd"));

  ASSERT_TRUE(open({for_networks("systemd:nbd", {"127.0.0.2"})}, std::move(inherited)));

  EXPECT_EQ(listeners.addresses().size(), 1u);
  EXPECT_TRUE(enters(2));
  EXPECT_FALSE(enters(3));
  EXPECT_EQ(log.warnings.at(0),
            "'listen' does not name all sockets of the service manager: 1 not used");
}

TEST_F(Door, SaysThatNothingWasHandedOver) {
  const Result<> opened = open({at("systemd:nbd")});

  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().message,
            "cannot listen on systemd:nbd: systemd has handed over no socket with "
            "FileDescriptorName=nbd");
}

TEST_F(Door, ServesAConnectionThatWasHandedOver) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()), 0);
  const Descriptor client(ends[0]);
  std::vector<InheritedSocket> inherited;
  inherited.push_back({Descriptor(ends[1]), "connection", InheritedSocket::State::connected});

  ASSERT_TRUE(open({}, std::move(inherited)));

  EXPECT_TRUE(listeners.addresses().empty());
  EXPECT_EQ(accepted.size(), 1u);
}

TEST_F(Door, KeepsAConnectionOutThatWasHandedOverAndIsNotAllowed) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()), 0);
  const Descriptor client(ends[0]);
  std::vector<InheritedSocket> inherited;
  inherited.push_back({Descriptor(ends[1]), "connection", InheritedSocket::State::connected});

  ASSERT_TRUE(open({for_networks("systemd", {"0.0.0.0/0", "::/0"})}, std::move(inherited)));

  EXPECT_TRUE(accepted.empty());
}

}  // namespace
}  // namespace app
