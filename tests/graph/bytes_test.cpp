#include "graph/base/bytes.h"

#include <gtest/gtest.h>

#include <limits>
#include <string>

namespace {

constexpr std::uint64_t max = std::numeric_limits<std::uint64_t>::max();

TEST(Bytes, SumsThatDoNotFitAreNone) {
  EXPECT_EQ(checked_add(1, 2), 3U);
  EXPECT_EQ(checked_add(max, 0), max);
  EXPECT_EQ(checked_add(max, 1), std::nullopt);
  EXPECT_EQ(checked_add(max / 2 + 1, max / 2 + 1), std::nullopt);
}

TEST(Bytes, RoundToPowersOfTwo) {
  EXPECT_EQ(align_down(4097, 4096), 4096U);
  EXPECT_EQ(align_up(4097, 4096), 8192U);
  EXPECT_EQ(align_up(4096, 4096), 4096U);
  EXPECT_EQ(align_down(5, 1), 5U);
  EXPECT_TRUE(is_aligned(0, 512));
  EXPECT_FALSE(is_power_of_two(0));
}

TEST(Range, LiesWithinWithoutComputingAnEndThatWraps) {
  EXPECT_TRUE((Range{0, 512}.lies_within(512)));
  EXPECT_TRUE((Range{512, 0}.lies_within(512)));
  EXPECT_FALSE((Range{513, 0}.lies_within(512)));
  EXPECT_FALSE((Range{1, 512}.lies_within(512)));
  EXPECT_FALSE((Range{max, 2}.lies_within(512)));
  EXPECT_FALSE((Range{1, max}.lies_within(max)));
  EXPECT_TRUE((Range{0, max}.lies_within(max)));
}

TEST(Range, OverlapsWhatItSharesAByteWith) {
  EXPECT_TRUE((Range{0, 10}.overlaps({9, 1})));
  EXPECT_FALSE((Range{0, 10}.overlaps({10, 1})));
  EXPECT_FALSE((Range{10, 1}.overlaps({0, 10})));
  EXPECT_FALSE((Range{5, 0}.overlaps({0, 10})));
  EXPECT_FALSE((Range{0, 10}.overlaps({5, 0})));
}

TEST(Range, WidensToWholeUnits) {
  EXPECT_EQ((Range{100, 500}.widened(512)), (Range{0, 1024}));
  EXPECT_EQ((Range{512, 512}.widened(512)), (Range{512, 512}));
  EXPECT_EQ((Range{100, 500}.widened(1)), (Range{100, 500}));
}

TEST(Stored, NumbersHaveTheOrderOfTheirType) {
  const Be<std::uint32_t> big = 0x01020304U;
  const Le<std::uint32_t> little = 0x01020304U;
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(&big), 4), "\x01\x02\x03\x04");
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(&little), 4), "\x04\x03\x02\x01");
  EXPECT_EQ(big.get(), 0x01020304U);
  EXPECT_EQ(little.get(), 0x01020304U);
  static_assert(alignof(Be<std::uint64_t>) == 1 && sizeof(Be<std::uint64_t>) == 8);
}

TEST(ByteReader, TakesNothingPastTheEnd) {
  const std::string text("\x00\x07rest", 6);
  ByteReader reader(bytes_of(std::string_view(text)));

  EXPECT_EQ(reader.take<Be<std::uint16_t>>().value().get(), 7U);
  EXPECT_EQ(reader.take<Be<std::uint64_t>>(), std::nullopt);
  EXPECT_EQ(reader.take_string(5), std::nullopt);
  EXPECT_EQ(reader.take_string(4), "rest");
  EXPECT_EQ(reader.remaining(), 0U);
  EXPECT_EQ(reader.take_string(0), "");
}

TEST(Bytes, AreZeroWhenEachOneIs) {
  for (std::size_t length = 0; length < 100; ++length) {
    const std::string zeroes(length, '\0');
    EXPECT_TRUE(is_zero(bytes_of(std::string_view(zeroes))));
    for (std::size_t at = 0; at < length; ++at) {
      std::string spoilt = zeroes;
      spoilt[at] = '\x80';
      EXPECT_FALSE(is_zero(bytes_of(std::string_view(spoilt)))) << at << " of " << length;
    }
  }
}

}  // namespace
