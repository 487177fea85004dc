// read_test.cpp - READ: simple replies, chunks, holes, failures half-way.
// Spec: proto.md, "NBD_CMD_READ", "Structured reply types"; statements 121 to 135.
#include "tests/support/nbd_fixture.h"

namespace test {
namespace {

bool is_content(const Message& message) {
  return message.type == chunk::offset_data || message.type == chunk::offset_hole;
}

std::vector<Message> content_of(const Answer& answer) {
  std::vector<Message> found;
  for (const Message& message : answer.messages) {
    if (is_content(message)) found.push_back(message);
  }
  return found;
}

// What statements 123, 124, 127 and 129 ask of every structured answer to a READ; "" when all is
// well.
std::string complaints(const Answer& answer, Range asked) {
  std::string found;
  std::map<std::uint64_t, std::uint64_t> covered;  // start -> end
  std::size_t errors = 0;
  for (std::size_t i = 0; i < answer.messages.size(); ++i) {
    const Message& message = answer.messages[i];
    if (message.done() != (i + 1 == answer.messages.size()))
      found += "DONE is not on the last chunk; ";
    if (message.type == chunk::none && (!message.data.empty() || !message.done()))
      found += "NONE; ";
    if (message.type == chunk::error || message.type == chunk::error_offset) ++errors;
    if (!is_content(message)) continue;
    const bool hole = message.type == chunk::offset_hole;
    if (hole ? message.data.size() != 12 : message.data.size() < 9) found += "a wrong length; ";
    if (message.length() == 0) found += "an empty chunk; ";
    const std::uint64_t end = message.offset() + message.length();
    if (message.offset() < asked.offset || end > asked.end()) found += "outside of the request; ";
    for (const auto& [start, stop] : covered) {
      if (message.offset() < stop && start < end) found += "overlapping chunks; ";
    }
    covered[message.offset()] = end;
    const bool failed_here = errors == 0 && answer.error_offset && end == *answer.error_offset;
    if (message.offset() != asked.offset && message.offset() % 512 != 0)
      found += "starts inside a sector; ";
    if (end != asked.end() && end % 512 != 0 && !failed_here) found += "ends inside a sector; ";
  }
  std::uint64_t sum = 0;
  for (const auto& [start, stop] : covered) sum += stop - start;
  if (answer.good() && sum != asked.length) found += "not all is covered; ";
  if (answer.good() == (errors > 0) || errors > 1) found += "errors; ";
  return found;
}

graph::Extent extent(std::uint64_t length, graph::ExtentKind kind) {
  graph::Extent one;
  one.length = length;
  one.kind = kind;
  one.allocated = true;
  return one;
}

TEST(Protocol, S121_ASimpleReplyHasTheDataOrAnErrorAndNothing) {
  NbdHost host;
  host.put("broken", 0, pattern(1000));
  WireClient& client = host.attached("broken", simple_replies);

  const Answer good = client.reads(10, 500);
  const Answer bad = client.reads(512 * KiB, 500);

  EXPECT_EQ(difference(good.data, pattern(500, 10)), "");
  EXPECT_EQ(bad.error, err::eio);
  EXPECT_EQ(client.hears_the_rest(), "");
}

TEST(Protocol, S122_ASimpleReplyIsNotBegunBeforeTheReadIsKnownToSucceed) {
  NbdHost host;
  WireClient& client = host.attached("broken", simple_replies);

  const Answer answer = client.reads(0, 1 * MiB);  // half of it is good

  EXPECT_EQ(answer.error, err::eio);
  EXPECT_TRUE(client.reads(0, 512 * KiB).good());
}

TEST(Protocol, S123_ChunksCoverTheRequestOnce) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    HostOptions options;
    options.seed = seed;
    NbdHost host(options);
    sim::Scheduler& dice = host.world.scheduler;
    std::string content = zeroes(2 * MiB);
    for (int i = 0; i < 10; ++i) {
      const std::size_t at = dice.choose(content.size() - 100'000);
      const std::string data = pattern(dice.choose(100'000));
      content.replace(at, data.size(), data);
      host.put("disk", at, data);
    }
    WireClient& client = host.attached();

    for (int i = 0; i < 20; ++i) {
      const std::uint64_t offset = dice.choose(content.size());
      const Range range{offset, dice.choose(content.size() - offset)};
      const Answer answer = client.reads(range.offset, range.length);
      EXPECT_EQ(complaints(answer, range), "");
      EXPECT_EQ(difference(answer.data, content.substr(range.offset, range.length)), "");
    }
  }
}

TEST(Protocol, S124_ChunksHaveTheLengthsOfTheirTypes) {
  NbdHost host;
  host.put("disk", 100'000, pattern(1));
  WireClient& client = host.attached();

  for (const Range range : {Range{100'000, 1}, Range{0, 1}, Range{0, 511}, Range{0, 512},
                            Range{0, 300'000}, Range{7, 0}, Range{99'999, 400'000}}) {
    EXPECT_EQ(complaints(client.reads(range.offset, range.length), range), "");
  }
}

TEST(Protocol, S125_NoContentChunkIsTheLastWhileAnErrorCanStillCome) {
  NbdHost host;
  host.put("disk", 0, pattern(9 * MiB));
  host.probe("disk").bad = Range{9 * MiB - 1, 1};
  WireClient& client = host.attached();

  const Answer answer = client.reads(0, 9 * MiB);

  for (const Message& message : content_of(answer)) EXPECT_FALSE(message.done());
  EXPECT_EQ(answer.messages.back().type, chunk::error_offset);
}

TEST(Protocol, S126_AnErrorInTheMiddleDoesNotCostTheConnection) {
  NbdHost host;
  host.put("broken", 0, pattern(1 * MiB));
  WireClient& client = host.attached("broken");

  EXPECT_EQ(client.reads(0, 1 * MiB).error, err::eio);

  EXPECT_TRUE(client.reads(0, 512 * KiB).good());
}

TEST(Protocol, S127_OneErrorSaysWhereAndLiesInTheRequest) {
  NbdHost host;
  host.put("broken", 0, pattern(1 * MiB));
  WireClient& client = host.attached("broken");
  const std::uint64_t bad = 512 * KiB;

  for (const Range range :
       {Range{0, 1 * MiB}, Range{bad, 10}, Range{bad + 100, 100'000}, Range{bad - 1, 2},
        Range{bad - 100'000, 150'000}, Range{bad + 65535, 1}}) {
    const Answer answer = client.reads(range.offset, range.length);
    EXPECT_EQ(complaints(answer, range), "");
    EXPECT_EQ(answer.error_offset, std::max(range.offset, bad));
    EXPECT_NE(answer.text, "");
  }
}

TEST(Protocol, S127_ANodeThatNamesAnOffsetOutsideIsNotBelieved) {
  NbdHost host;
  host.probe("disk").failing["read"] = Errc::io_error;
  host.probe("disk").failing["read 4096"] = Errc::io_error;
  WireClient& client = host.attached();

  const Answer answer = client.reads(4096, 4096);

  EXPECT_EQ(complaints(answer, {4096, 4096}), "");
  EXPECT_EQ(answer.error_offset, 4096U);
}

TEST(Protocol, S128_WhatCouldBeReadBeforeTheErrorIsSent) {
  NbdHost host;
  host.put("broken", 0, pattern(1 * MiB));
  WireClient& client = host.attached("broken");

  for (const std::uint64_t offset : {0U, 1U, 1000U, 500'000U}) {
    const Answer answer = client.reads(offset, 540'000);
    EXPECT_EQ(answer.error, err::eio);
    EXPECT_EQ(difference(answer.data, pattern(1 * MiB).substr(offset, 512 * KiB - offset)), "");
  }
}

TEST(Protocol, S129_ChunksAreFewAndMeetBetweenSectors) {
  NbdHost host;
  host.put("disk", 0, pattern(20 * MiB));
  Probe& disk = host.probe("disk");
  WireClient& client = host.attached();

  const Answer data = client.reads(1, 20 * MiB - 1);
  EXPECT_EQ(complaints(data, {1, 20 * MiB - 1}), "");
  EXPECT_LE(data.messages.size(), 6U);

  host.put("disk", 0, zeroes(1 * MiB));
  disk.extents = {
      extent(100'001, graph::ExtentKind::data), extent(100'001, graph::ExtentKind::zero),
      extent(100'001, graph::ExtentKind::data), extent(256 * MiB, graph::ExtentKind::zero)};
  host.put("disk", 0, pattern(100'001));
  host.put("disk", 200'002, pattern(100'001));
  const Answer mixed = client.reads(3, 1'000'000);
  EXPECT_EQ(complaints(mixed, {3, 1'000'000}), "");
  EXPECT_EQ(difference(mixed.data, host.get("disk", {3, 1'000'000})), "");
  EXPECT_LE(mixed.messages.size(), 5U);
}

TEST(Protocol, S130_WithDfThereIsAtMostOneContentChunk) {
  NbdHost host;
  host.put("disk", 1 * MiB, pattern(100));
  host.put("broken", 0, pattern(1000));
  WireClient& client = host.attached();
  WireClient& broken = host.attached("broken");

  const Answer mixed = client.reads(0, 2 * MiB, flag::df);
  const Answer largest = client.reads(0, 32 * MiB, flag::df);
  const Answer small = client.reads(1 * MiB, 65536, flag::df);
  const Answer too_long = client.reads(0, 32 * MiB + 1, flag::df);
  const Answer bad = broken.reads(0, 1 * MiB, flag::df);

  EXPECT_EQ(content_of(mixed).size(), 1U);
  EXPECT_EQ(content_of(mixed)[0].type, chunk::offset_data);
  EXPECT_EQ(difference(mixed.data, host.get("disk", {0, 2 * MiB})), "");
  EXPECT_EQ(content_of(largest).size(), 1U);
  EXPECT_TRUE(small.good());
  EXPECT_EQ(too_long.error, err::eoverflow);
  EXPECT_EQ(content_of(too_long).size(), 0U);
  EXPECT_LE(content_of(bad).size(), 1U);
  EXPECT_EQ(bad.error_offset, 512 * KiB);
}

TEST(Protocol, S131_DfThatWasNotNegotiatedIsInvalid) {
  NbdHost host;
  WireClient& client = host.attached("disk", simple_replies);

  EXPECT_EQ(client.reads(0, 512, flag::df).error, err::einval);
  EXPECT_TRUE(client.reads(0, 512).good());
}

TEST(Protocol, S132_NoChunkIsLongerThanTheMaximumPayload) {
  NbdHost host;
  host.put("disk", 0, pattern(64 * MiB));
  WireClient& client = host.attached();

  for (const Answer& answer : {client.reads(0, 64 * MiB), client.reads(0, 32 * MiB, flag::df)}) {
    EXPECT_TRUE(answer.good());
    for (const Message& message : answer.messages) EXPECT_LE(message.length(), 32 * MiB);
  }
}

TEST(Protocol, S133_LongReadsAreStreamedUpToALimit) {
  NbdHost host;
  WireClient& structured = host.attached();
  WireClient& simple = host.attached("disk", simple_replies);

  EXPECT_EQ(difference(structured.reads(0, 64 * MiB).data, zeroes(64 * MiB)), "");
  EXPECT_EQ(structured.reads(0, 64 * MiB + 1).error, err::eoverflow);
  EXPECT_TRUE(simple.reads(0, 32 * MiB).good());
  EXPECT_EQ(simple.reads(0, 32 * MiB + 1).error, err::einval);
  EXPECT_TRUE(simple.reads(0, 1).good());
}

TEST(Protocol, S133_ALongAnswerTakesBoundedMemoryHoweverSlowlyItIsRead) {
  NbdHost host;
  host.put("disk", 0, pattern(64 * MiB));
  sim::Line narrow;
  narrow.to_client_max = 64 * KiB;
  WireClient& client = host.attached("disk", {}, narrow);

  std::vector<std::uint64_t> asked;
  for (int i = 0; i < 20; ++i) asked.push_back(client.sends({.length = 64 * MiB}));
  host.world.scheduler.settle();

  EXPECT_LE(host.world.buffers.lent(), 64 * MiB);
  EXPECT_EQ(difference(client.answer(asked[0]).data, pattern(64 * MiB)), "");
}

TEST(Protocol, S134_AnEmptyReadSucceeds) {
  NbdHost host;
  WireClient& simple = host.attached("disk", simple_replies);
  WireClient& structured = host.attached();

  for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{5}, NbdHost::disk_size}) {
    EXPECT_TRUE(simple.reads(offset, 0).good());
    const Answer answer = structured.reads(offset, 0);
    ASSERT_EQ(answer.messages.size(), 1U);
    EXPECT_EQ(answer.messages[0].type, chunk::none);
    EXPECT_TRUE(answer.messages[0].done());
  }
  EXPECT_EQ(structured.reads(NbdHost::disk_size + 1, 0).error, err::einval);
}

TEST(Protocol, S135_HolesAreSentAsHolesWhereThatSavesBytes) {
  NbdHost host;
  WireClient& client = host.attached();

  const std::uint64_t before = client.stream().received();
  EXPECT_EQ(difference(client.reads(0, 64 * MiB).data, zeroes(64 * MiB)), "");
  EXPECT_LT(client.stream().received() - before, 1000U);

  EXPECT_EQ(client.reads(0, 511).messages[0].type, chunk::offset_data);
  EXPECT_EQ(client.reads(0, 512).messages[0].type, chunk::offset_hole);
}

TEST(Protocol, S135_ShortHolesDoNotBreakAnAnswerIntoPieces) {
  NbdHost host;
  host.put("disk", 0, pattern(1 * MiB));
  std::vector<graph::Extent> list;
  for (int i = 0; i < 512; ++i) {
    list.push_back(extent(1024, graph::ExtentKind::data));
    list.push_back(extent(1024, graph::ExtentKind::zero));
    host.put("disk", static_cast<std::uint64_t>(i) * 2048 + 1024, zeroes(1024));
  }
  host.probe("disk").extents = list;
  WireClient& client = host.attached();

  const Answer answer = client.reads(0, 1 * MiB);

  EXPECT_EQ(difference(answer.data, host.get("disk", {0, 1 * MiB})), "");
  EXPECT_LE(answer.messages.size(), 32U);
}

}  // namespace
}  // namespace test
