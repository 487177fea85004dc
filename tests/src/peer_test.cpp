#include "src/peer.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "src/descriptor.h"

namespace app {
namespace {

// Two ends of a connection through a listener at `name`.
template <class Name>
class Pair {
 public:
  explicit Pair(Name name) {
    auto* address = reinterpret_cast<sockaddr*>(&name);
    socklen_t length = sizeof name;
    listener = Descriptor(::socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::bind(listener.get(), address, length), 0);
    EXPECT_EQ(::listen(listener.get(), 1), 0);
    EXPECT_EQ(::getsockname(listener.get(), address, &length), 0);
    caller = Descriptor(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in target{};
    target.sin_family = AF_INET;
    target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    std::memcpy(&target.sin_port, reinterpret_cast<char*>(&name) + 2, sizeof target.sin_port);
    EXPECT_EQ(::connect(caller.get(), reinterpret_cast<sockaddr*>(&target), sizeof target), 0);
    accepted = Descriptor(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  }
  Descriptor listener;
  Descriptor caller;
  Descriptor accepted;
};

TEST(Peer, OfIPv4IsItsAddress) {
  sockaddr_in loopback{};
  loopback.sin_family = AF_INET;
  loopback.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const Pair pair(loopback);

  const Peer peer = peer_of(pair.accepted.get());

  EXPECT_EQ(peer.family, Peer::Family::ip);
  EXPECT_EQ(peer.address.to_string(), "127.0.0.1");
  EXPECT_EQ("tcp:" + peer.text, local_address_of(pair.caller.get()).text());
}

TEST(Peer, OfIPv4ThroughASocketOfIPv6IsIPv4) {
  sockaddr_in6 everywhere{};
  everywhere.sin6_family = AF_INET6;
  const Pair pair(everywhere);

  const Peer peer = peer_of(pair.accepted.get());

  EXPECT_EQ(peer.family, Peer::Family::ip);
  EXPECT_EQ(peer.address, asio::ip::make_address("127.0.0.1"));
  EXPECT_TRUE(peer.text.starts_with("127.0.0.1:")) << peer.text;
}

TEST(Peer, OfAUnixSocketIsAProcess) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  const Descriptor here(ends[0]);
  const Descriptor there(ends[1]);

  const Peer peer = peer_of(here.get());

  EXPECT_EQ(peer.family, Peer::Family::local);
  EXPECT_EQ(peer.text, "unix pid " + std::to_string(::getpid()) + " uid " +
                           std::to_string(::getuid()) + " gid " + std::to_string(::getgid()));
}

TEST(Peer, ThatHasLeftIsOfNoKind) {
  const Descriptor alone(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));

  EXPECT_EQ(peer_of(alone.get()).family, Peer::Family::other);
}

TEST(LocalAddress, OfAUnixSocketMayHaveNoFile) {
  const Descriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  // without a name of ours the system picks one of five digits
  ASSERT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&name), sizeof name.sun_family), 0);

  const Address address = local_address_of(socket.get());

  EXPECT_EQ(address.family, Address::Family::local);
  EXPECT_TRUE(address.text().starts_with("unix:@")) << address.text();
  EXPECT_TRUE(nbd_uri(address, "").starts_with("nbd+unix:///?socket=%00"));
}

}  // namespace
}  // namespace app
