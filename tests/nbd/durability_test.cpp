// durability_test.cpp - what one connection may rely on about another.
// Spec: proto.md, "Transmission flags", "Ordering of messages and writes"; statements 172 to 174.
#include "tests/support/nbd_fixture.h"

namespace test {
namespace {

TEST(Protocol, S172_WhatWasWrittenWithFuaIsDurableAndSeenByOthersWhenAnswered) {
  NbdHost host;
  WireClient& one = host.attached();
  WireClient& two = host.attached();
  Probe& disk = host.probe("disk");

  ASSERT_TRUE(one.writes(0, "abc", flag::fua).good());

  EXPECT_EQ(disk.calls.back(), "flush");
  EXPECT_EQ(two.reads(0, 3).data, "abc");
}

TEST(Protocol, S173_AFlushOfOneConnectionCoversTheWritesOfAllOthers) {
  NbdHost host;
  WireClient& one = host.attached();
  WireClient& two = host.attached();
  WireClient& reader = host.attached();
  ASSERT_TRUE(one.writes(0, "abc").good());
  ASSERT_TRUE(two.writes(100, "abc").good());

  EXPECT_TRUE(reader.does(cmd::flush, 0, 0).good());

  EXPECT_THAT(host.probe("disk").calls, testing::ElementsAre("write 0+3", "write 100+3", "flush"));
}

TEST(Protocol, S174_AnAnsweredWriteIsReadByEveryConnection) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    HostOptions options;
    options.seed = seed;
    NbdHost host(options);
    for (int i = 0; i < 4; ++i) host.attached("block512");
    std::string expected = zeroes(4096);

    for (std::size_t i = 0; i < 40; ++i) {
      sim::Scheduler& dice = host.world.scheduler;
      const std::size_t at = dice.choose(4000);
      const std::string data = pattern(1 + dice.choose(4096 - at - 1), static_cast<unsigned>(i));
      expected.replace(at, data.size(), data);
      ASSERT_TRUE(host.clients[dice.choose(4)]->writes(at, data).good());
      EXPECT_EQ(difference(host.clients[dice.choose(4)]->reads(0, 4096).data, expected), "")
          << seed;
    }
  }
}

}  // namespace
}  // namespace test
