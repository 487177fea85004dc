// write_test.cpp - WRITE: payloads are consumed, bounded, and answered when the data is where it
// belongs. Spec: proto.md, "NBD_CMD_WRITE", "Size constraints"; statements 136 to 142.
#include "tests/support/nbd_fixture.h"

namespace test {
namespace {

TEST(Protocol, S136_ThePayloadOfARefusedWriteIsConsumed) {
  struct Case {
    std::string_view name;
    bool sized;
    Request request;
    std::uint32_t expected;
  };
  const Case cases[] = {
      {"disk", false, {.offset = 0, .length = 100'000, .flags = flag::req_one}, err::einval},
      {"ro", false, {.offset = 0, .length = 100'000}, err::eperm},
      {"", false, {.offset = 1'000'000, .length = 100'000}, err::enospc},
      {"block512", true, {.offset = 1, .length = 100'000}, err::einval},
      {"disk", false, {.offset = 0, .length = 33 * MiB}, err::einval},
  };
  for (const Segments segments : {Segments::whole, Segments::random}) {
    for (const Case& one : cases) {
      NbdHost host(segments);
      WireClient& client = host.attached(one.name, {.sized = one.sized});
      Request request = one.request;
      request.command = cmd::write;
      request.payload = pattern(request.length);

      EXPECT_EQ(client.does(request).error, one.expected);

      EXPECT_TRUE(client.reads(0, 512).good());
      EXPECT_EQ(host.world.buffers.lent(), 0U);
    }
  }
}

TEST(Protocol, S136_ThePayloadOfAFailingWriteIsConsumed) {
  NbdHost host;
  host.probe("disk").failing["write"] = Errc::no_space;
  WireClient& client = host.attached();

  EXPECT_EQ(client.writes(0, pattern(100'000)).error, err::enospc);

  EXPECT_TRUE(client.reads(0, 512).good());
}

TEST(Protocol, S137_APayloadUpToTheMaximumIsWrittenAndALongerOneDrained) {
  NbdHost host;
  WireClient& client = host.attached();

  EXPECT_TRUE(client.writes(0, pattern(32 * MiB)).good());
  EXPECT_EQ(client.writes(0, zeroes(32 * MiB + 1)).error, err::einval);
  EXPECT_EQ(client.writes(0, zeroes(64 * MiB)).error, err::einval);

  EXPECT_EQ(difference(client.reads(0, 100).data, pattern(100)), "");
}

TEST(Protocol, S138_APayloadOfMoreThan64MebibytesEndsTheConnection) {
  for (const std::uint64_t length : {64 * MiB + 1, 0xffffffff * std::uint64_t{1}}) {
    NbdHost host;
    WireClient& client = host.attached();

    client.says(Request{.command = cmd::write, .length = length, .cookie = 1}.bytes());

    EXPECT_EQ(client.hears_the_rest(), "");
    EXPECT_TRUE(client.was_closed());
    EXPECT_EQ(host.lines_with("too long even to be ignored").size(), 1U);
  }
}

TEST(Protocol, S139_NoMemoryIsTakenForALengthThatIsNotServed) {
  NbdHost host;
  WireClient& client = host.attached();

  client.says(Request{.command = cmd::write, .length = 64 * MiB, .cookie = 1}.bytes() +
              "the first bytes");
  host.world.scheduler.settle();

  EXPECT_LE(host.world.buffers.lent(), 256 * KiB);
}

TEST(Protocol, S140_AnEmptyWriteSucceeds) {
  NbdHost host;

  EXPECT_TRUE(host.attached().writes(5, "").good());
  EXPECT_EQ(host.attached("ro").writes(5, "").error, err::eperm);
}

TEST(Protocol, S141_AWriteIsAnsweredAfterTheDataWasHandedOver) {
  NbdHost host;
  WireClient& client = host.attached();
  Probe& disk = host.probe("disk");
  disk.held = {"write"};

  const std::uint64_t cookie = client.sends({.command = cmd::write, .length = 3, .payload = "abc"});
  EXPECT_EQ(client.hears_the_rest(), "");
  disk.release();

  EXPECT_TRUE(client.answer(cookie).good());
  EXPECT_EQ(host.get("disk", {0, 3}), "abc");
}

TEST(Protocol, S141_AWriteWithFuaIsAnsweredAfterItIsDurable) {
  NbdHost host;
  WireClient& client = host.attached();
  Probe& disk = host.probe("disk");
  disk.held = {"flush"};

  const std::uint64_t cookie =
      client.sends({.command = cmd::write, .length = 3, .flags = flag::fua, .payload = "abc"});
  EXPECT_EQ(client.hears_the_rest(), "");
  EXPECT_THAT(disk.calls, testing::ElementsAre("write 0+3", "flush"));
  disk.release();

  EXPECT_TRUE(client.answer(cookie).good());
}

TEST(Protocol, S142_UnalignedWritesIntoOneBlockDoNotUndoEachOther) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    SCOPED_TRACE(seed);
    HostOptions options;
    options.seed = seed;
    NbdHost host(options);
    WireClient& client = host.attached("block4096");
    std::string expected = zeroes(8192);

    std::vector<std::uint64_t> asked;
    for (std::uint64_t i = 0; i < 16; ++i) {
      const std::string data(512, static_cast<char>('a' + i));
      expected.replace(i * 512, 512, data);
      asked.push_back(
          client.sends({.command = cmd::write, .offset = i * 512, .length = 512, .payload = data}));
    }
    for (const std::uint64_t cookie : asked) EXPECT_TRUE(client.answer(cookie).good());

    EXPECT_EQ(difference(host.get("block4096", {0, 8192}), expected), "");
  }
}

TEST(Protocol, S142_OfTwoOverlappingWritesEachBlockHoldsOne) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    SCOPED_TRACE(seed);
    HostOptions options;
    options.seed = seed;
    NbdHost host(options);
    WireClient& one = host.attached("block4096");
    WireClient& two = host.attached("block4096");

    const std::uint64_t first = one.sends(
        {.command = cmd::write, .offset = 100, .length = 8000, .payload = std::string(8000, 'x')});
    const std::uint64_t second = two.sends(
        {.command = cmd::write, .offset = 100, .length = 8000, .payload = std::string(8000, 'y')});
    EXPECT_TRUE(one.answer(first).good());
    EXPECT_TRUE(two.answer(second).good());

    const std::string heard = host.get("block4096", {0, 8192});
    EXPECT_EQ(difference(heard.substr(0, 4096), zeroes(100) + std::string(3996, heard[100])), "");
    EXPECT_EQ(difference(heard.substr(4096), std::string(4004, heard[4096]) + zeroes(92)), "");
  }
}

}  // namespace
}  // namespace test
