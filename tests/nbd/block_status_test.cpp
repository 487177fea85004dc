// block_status_test.cpp - BLOCK_STATUS for base:allocation.
// Spec: proto.md, "NBD_CMD_BLOCK_STATUS", "base:allocation metadata context"; statements 143, 158
// to 171.
#include "tests/support/nbd_fixture.h"

namespace test {
namespace {

using graph::ExtentKind;

graph::Extent extent(std::uint64_t length, ExtentKind kind, bool provisioned = false) {
  graph::Extent one;
  one.length = length;
  one.kind = kind;
  one.allocated = true;
  one.provisioned = provisioned;
  return one;
}

std::uint64_t sum(const std::vector<Extent>& list) {
  std::uint64_t total = 0;
  for (const Extent& one : list) total += one.length;
  return total;
}

// What statements 159 to 165 ask of every good answer; "" when all is well.
std::string complaints(const Answer& answer, Range asked, std::uint64_t size,
                       std::uint16_t flags = 0) {
  std::string found;
  if (!answer.good() || answer.messages.size() != 1) return "not one chunk; ";
  const Message& message = answer.messages[0];
  if (message.type != chunk::block_status || !message.done() || message.data.size() % 8 != 4)
    found += "the chunk; ";
  const std::vector<Extent>& list = answer.extents;
  if (list.empty() || list.size() > 1 << 20) found += "the number; ";
  std::uint64_t at = asked.offset;
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (list[i].length == 0) found += "an empty extent; ";
    if (i > 0 && list[i].status == list[i - 1].status) found += "neighbours alike; ";
    if ((list[i].status & ~3U) != 0) found += "unknown bits; ";
    if (i + 1 < list.size() && at + list[i].length >= asked.end())
      found += "reaches past the request too early; ";
    at += list[i].length;
    if (at % 512 != 0 && at != size && at != asked.end()) found += "ends inside a sector; ";
  }
  if (at > size) found += "past the end of the export; ";
  if ((flags & flag::req_one) != 0 && (list.size() != 1 || at > asked.end())) found += "not one; ";
  return found;
}

// The export "mixed": extents of random kinds and lengths.
Probe& serve_mixed(NbdHost& host, std::uint64_t unit) {
  Probe& probe = host.serve("mixed", 1 * MiB);
  std::vector<graph::Extent> list;
  for (std::uint64_t length = 0; length < 1 * MiB;) {
    const ExtentKind kinds[] = {ExtentKind::data, ExtentKind::zero, ExtentKind::below,
                                ExtentKind::opaque};
    list.push_back(extent((1 + host.world.scheduler.choose(3000)) * unit,
                          kinds[host.world.scheduler.choose(4)], host.world.scheduler.one_in(2)));
    length += list.back().length;
  }
  probe.extents = std::move(list);
  return probe;
}

TEST(Protocol, S143_OnlyWhatIsProvisionedIsReportedWithoutHole) {
  NbdHost host;
  host.probe("disk").extents = {extent(4096, ExtentKind::data), extent(4096, ExtentKind::zero),
                                extent(4096, ExtentKind::zero, true),
                                extent(NbdHost::disk_size, ExtentKind::below)};
  WireClient& client = host.attached();

  EXPECT_EQ(client.does(cmd::block_status, 0, 16384).extents,
            (std::vector<Extent>{{4096, 0}, {4096, 3}, {4096, 2}, {4096, 3}}));
}

TEST(Protocol, S158_WithoutAContextItIsInvalid) {
  NbdHost host;

  EXPECT_EQ(host.attached("disk", {.meta = false}).does(cmd::block_status, 0, 512).error,
            err::einval);
  EXPECT_EQ(host.attached("disk", simple_replies).does(cmd::block_status, 0, 512).error,
            err::einval);
}

TEST(Protocol, S159_OneChunkForTheContextWithItsId) {
  NbdHost host;
  WireClient& client = host.client();
  client.greets();
  client.structures();
  const std::string id =
      client.sets_meta("disk", {"base:allocation"}).all(rep::meta_context).at(0).substr(0, 4);
  client.goes("disk");

  const Answer answer = client.does(cmd::block_status, 0, 1 * MiB);

  ASSERT_EQ(answer.messages.size(), 1U);
  EXPECT_EQ(answer.messages[0].type, chunk::block_status);
  EXPECT_TRUE(answer.messages[0].done());
  EXPECT_EQ(answer.messages[0].data.substr(0, 4), id);
}

TEST(Protocol, S160_S161_S164_S165_DescriptorsAreConsecutiveNotEmptyMergedAndWholeSectors) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE(seed);
    HostOptions options;
    options.seed = seed;
    NbdHost host(options);
    serve_mixed(host, seed % 2 == 0 ? 1 : 512);
    WireClient& client = host.attached("mixed");
    sim::Scheduler& dice = host.world.scheduler;

    for (int i = 0; i < 20; ++i) {
      const std::uint64_t offset = dice.choose(1 * MiB);
      const Range range{offset, 1 + dice.choose(1 * MiB - offset)};
      EXPECT_EQ(
          complaints(client.does(cmd::block_status, range.offset, range.length), range, 1 * MiB),
          "");
      EXPECT_EQ(
          complaints(client.does(cmd::block_status, range.offset, range.length, flag::req_one),
                     range, 1 * MiB, flag::req_one),
          "");
    }
  }
}

TEST(Protocol, S160_AskingOnFromWhereTheAnswerEndedReachesTheEnd) {
  NbdHost host;
  std::vector<graph::Extent> bytes;
  for (std::uint64_t i = 0; i < 100'000; ++i)
    bytes.push_back(extent(1 + i % 3, i % 2 == 0 ? ExtentKind::data : ExtentKind::zero));
  bytes.push_back(extent(1 * MiB, ExtentKind::data));
  host.serve("fine", 1 * MiB).extents = bytes;
  WireClient& client = host.attached("fine");

  for (const std::uint16_t flags : {std::uint16_t{0}, flag::req_one}) {
    std::uint64_t at = 1;
    for (int round = 0; at < 1 * MiB && round < 5000; ++round) {
      const Answer answer = client.does(cmd::block_status, at, 1 * MiB - at, flags);
      ASSERT_EQ(complaints(answer, {at, 1 * MiB - at}, 1 * MiB, flags), "");
      at += sum(answer.extents);
    }
    EXPECT_EQ(at, 1 * MiB);
  }
}

TEST(Protocol, S162_ReqOneGivesExactlyOneExtentWithinTheRequest) {
  NbdHost host;
  host.put("disk", 64 * KiB, pattern(64 * KiB));
  WireClient& client = host.attached();

  EXPECT_EQ(client.does(cmd::block_status, 0, 1 * MiB, flag::req_one).extents,
            (std::vector<Extent>{{64 * KiB, 3}}));
  EXPECT_EQ(client.does(cmd::block_status, 64 * KiB, 10, flag::req_one).extents,
            (std::vector<Extent>{{10, 0}}));
}

TEST(Protocol, S163_TheNumberOfDescriptorsIsBounded) {
  NbdHost host;
  std::vector<graph::Extent> list;
  for (int i = 0; i < 100'000; ++i)
    list.push_back(extent(512, i % 2 == 0 ? ExtentKind::data : ExtentKind::zero));
  list.push_back(extent(NbdHost::disk_size, ExtentKind::data));
  host.probe("disk").extents = list;
  WireClient& client = host.attached();

  const Answer answer = client.does(cmd::block_status, 0, NbdHost::disk_size);

  EXPECT_EQ(complaints(answer, {0, NbdHost::disk_size}, NbdHost::disk_size), "");
  EXPECT_LE(answer.extents.size(), std::size_t{1} << 20);
  EXPECT_GE(answer.extents.size(), 1000U);
}

TEST(Protocol, S165_ExtentsAreWholeBlocksOfWhoAskedForTheBlockSize) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    HostOptions options;
    options.seed = seed;
    NbdHost host(options);
    serve_mixed(host, 1).alignment = 4096;
    host.take_effect();
    WireClient& client = host.attached("mixed", {.sized = true});

    const Answer answer = client.does(cmd::block_status, 4096, 1 * MiB - 4096);

    EXPECT_EQ(complaints(answer, {4096, 1 * MiB - 4096}, 1 * MiB), "");
    for (const Extent& one : answer.extents) EXPECT_EQ(one.length % 4096, 0U);
  }
}

TEST(Protocol, S166_AnExtentLongerThan32BitsIsCutAndNeverEmpty) {
  NbdHost host;
  host.serve("huge", 8 * GiB).alignment = 4096;
  host.take_effect();
  WireClient& any = host.attached("huge");
  WireClient& sized = host.attached("huge", {.sized = true});

  EXPECT_EQ(any.does(cmd::block_status, 0, 0xffffffff).extents,
            (std::vector<Extent>{{0xffffffff, 3}}));
  EXPECT_EQ(sized.does(cmd::block_status, 4096, 0xfffff000).extents,
            (std::vector<Extent>{{0xfffff000, 3}}));
}

TEST(Protocol, S167_BeyondTheEndOrOfNoLengthIsInvalid) {
  NbdHost host;
  WireClient& client = host.attached("");

  EXPECT_EQ(client.does(cmd::block_status, NbdHost::small_size, 1).error, err::einval);
  EXPECT_EQ(client.does(cmd::block_status, 0, NbdHost::small_size + 1).error, err::einval);
  EXPECT_EQ(client.does(cmd::block_status, 0, 0).error, err::einval);
  EXPECT_EQ(client.does(cmd::block_status, NbdHost::small_size, 0).error, err::einval);
  EXPECT_TRUE(client.does(cmd::block_status, NbdHost::small_size - 1, 1).good());
}

TEST(Protocol, S168_WhereTheStatusIsNotKnownItIsData) {
  NbdHost host;
  host.probe("disk").failing["map"] = Errc::io_error;
  WireClient& client = host.attached();

  for (const std::uint16_t flags : {std::uint16_t{0}, flag::req_one}) {
    EXPECT_EQ(client.does(cmd::block_status, 512, 1 * MiB, flags).extents,
              (std::vector<Extent>{{1 * MiB, 0}}));
  }

  EXPECT_EQ(host.world.log.warnings.size(), 1U);
}

TEST(Protocol, S169_ZeroIsSaidOnlyOfWhatReadsAsZero) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    HostOptions options;
    options.seed = seed;
    NbdHost host(options);
    sim::Scheduler& dice = host.world.scheduler;
    for (int i = 0; i < 10; ++i)
      host.put("disk", dice.choose(1 * MiB), pattern(1 + dice.choose(60'000)));
    WireClient& client = host.attached();

    std::uint64_t at = 0;
    for (const Extent& one : client.does(cmd::block_status, 0, 2 * MiB).extents) {
      if ((one.status & 2) != 0) {
        EXPECT_EQ(difference(host.get("disk", {at, one.length}), zeroes(one.length)), "");
      }
      at += one.length;
    }
    EXPECT_EQ(at, 2 * MiB);
  }
}

TEST(Protocol, S171_TheAnswerIsSentInOnePiece) {
  NbdHost host;
  std::vector<graph::Extent> list;
  for (int i = 0; i < 2000; ++i)
    list.push_back(extent(512, i % 2 == 0 ? ExtentKind::data : ExtentKind::zero));
  list.push_back(extent(NbdHost::disk_size, ExtentKind::data));
  host.probe("disk").extents = list;
  WireClient& client = host.attached();
  const std::uint64_t before = client.stream().writes_of_peer();

  const Answer answer = client.does(cmd::block_status, 0, 1 * MiB);

  EXPECT_GE(answer.extents.size(), 2000U);
  EXPECT_EQ(client.stream().writes_of_peer() - before, 1U);
}

}  // namespace
}  // namespace test
