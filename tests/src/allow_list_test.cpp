#include "src/allow_list.h"

#include <gtest/gtest.h>

#include <initializer_list>

namespace app {
namespace {

std::string complaint(std::string_view text) {
  const auto network = Network::parse(text);
  return network ? "" : network.error().message;
}

bool contains(const char* network, const char* address) {
  return Network::parse(network)->contains(asio::ip::make_address(address));
}

Peer from(const char* address) {
  Peer peer;
  peer.family = Peer::Family::ip;
  peer.address = asio::ip::make_address(address);
  return peer;
}

TEST(Network, ContainsWhatBeginsWithItsBits) {
  EXPECT_TRUE(contains("10.0.0.0/8", "10.255.255.255"));
  EXPECT_FALSE(contains("10.0.0.0/8", "11.0.0.0"));
  EXPECT_TRUE(contains("192.168.4.0/22", "192.168.7.255"));
  EXPECT_FALSE(contains("192.168.4.0/22", "192.168.8.0"));
  EXPECT_TRUE(contains("128.0.0.0/1", "255.255.255.255"));
  EXPECT_FALSE(contains("128.0.0.0/1", "127.255.255.255"));
  EXPECT_TRUE(contains("2001:db8::/33", "2001:db8:7fff::1"));
  EXPECT_FALSE(contains("2001:db8::/33", "2001:db8:8000::1"));
}

TEST(Network, WithoutALengthIsOneAddress) {
  // CVE-2013-6410: 10.0.0.1 also let in what is written like it, 10.0.0.10
  EXPECT_TRUE(contains("10.0.0.1", "10.0.0.1"));
  EXPECT_FALSE(contains("10.0.0.1", "10.0.0.10"));
  EXPECT_FALSE(contains("10.0.0.1", "10.0.0.0"));
  EXPECT_TRUE(contains("::1", "::1"));
  EXPECT_FALSE(contains("::1", "::1:1"));
}

TEST(Network, OfLengthZeroIsAWholeFamilyAndNotTheOther) {
  EXPECT_TRUE(contains("0.0.0.0/0", "203.0.113.9"));
  EXPECT_TRUE(contains("::/0", "2001:db8::1"));
  EXPECT_FALSE(contains("0.0.0.0/0", "::1"));
  EXPECT_FALSE(contains("::/0", "127.0.0.1"));
}

TEST(Network, SaysWhatIsWrong) {
  const std::string expected =
      "expected an address such as 192.168.1.7 or 10.0.0.0/8 or 2001:db8::/32";
  for (const char* text : {"", "/8", "10", "10.0.0", "10.0.0.0.0", "10.0.0.256", "010.0.0.1",
                           "10.0.0.0 ", "localhost", "10.0.0.*", "[::1]", "::1::", "0x7f000001"}) {
    EXPECT_EQ(complaint(text), "'" + std::string(text) + "' is no network: " + expected);
  }
  for (const char* text : {"10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/8/8",
                           "10.0.0.0/255.0.0.0", "10.0.0.0/ 8", "10.0.0.0/99999999999"}) {
    EXPECT_EQ(complaint(text),
              "'" + std::string(text) +
                  "' is no network: after the slash comes a number of bits from 0 to 32");
  }
  EXPECT_EQ(complaint("::/129"),
            "'::/129' is no network: after the slash comes a number of bits from 0 to 128");
  EXPECT_EQ(complaint("10.1.2.3/8"),
            "'10.1.2.3/8' is no network: it has bits set after the first 8; the network is "
            "10.0.0.0/8");
  EXPECT_EQ(complaint("2001:db8::1/64"),
            "'2001:db8::1/64' is no network: it has bits set after the first 64; the network is "
            "2001:db8::/64");
  EXPECT_EQ(complaint("::ffff:10.0.0.0/104"),
            "'::ffff:10.0.0.0/104' is no network: IPv4 addresses are written as such, whatever "
            "socket they come through");
  EXPECT_FALSE(Network::parse("fe80::1%lo"));
  EXPECT_FALSE(Network::parse(std::string_view("10.0.0.1\0", 9)));
}

TEST(AllowList, AdmitsWhoIsInOneOfItsNetworks) {
  AllowList list;
  for (const char* network : {"10.0.0.0/8", "::1"}) {
    list.networks.push_back(*Network::parse(network));
  }

  EXPECT_TRUE(list.admits(from("10.1.2.3")));
  EXPECT_TRUE(list.admits(from("::1")));
  EXPECT_FALSE(list.admits(from("127.0.0.1")));
  EXPECT_FALSE(list.admits(from("::2")));
}

TEST(AllowList, AdmitsMachinesByTheirNumber) {
  AllowList list;
  list.cids = {3};
  Peer guest;
  guest.family = Peer::Family::vsock;

  guest.cid = 3;
  EXPECT_TRUE(list.admits(guest));
  guest.cid = 4;
  EXPECT_FALSE(list.admits(guest));
}

TEST(AllowList, KeepsOutWhoIsOfAnotherKind) {
  AllowList everybody;
  everybody.networks = {*Network::parse("0.0.0.0/0"), *Network::parse("::/0")};
  Peer peer;

  for (const auto family : {Peer::Family::local, Peer::Family::vsock, Peer::Family::other}) {
    peer.family = family;
    EXPECT_FALSE(everybody.admits(peer));
  }
}

}  // namespace
}  // namespace app
