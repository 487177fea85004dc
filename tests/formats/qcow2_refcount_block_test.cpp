// Single counts in a block, all seven widths, against a second opinion of where the bits are
// (QR-1).
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "formats/qcow2/refcount_block.h"

namespace {

using formats::qcow2::get_refcount;
using formats::qcow2::set_refcount;

constexpr std::size_t block_bytes = 64;

// Bit by bit, as the specification says: a wide count is big endian, narrow ones fill their byte
// from its least significant bit.
std::uint64_t bit_by_bit(const std::vector<std::byte>& block, unsigned order, std::uint64_t index) {
  const unsigned width = 1U << order;
  std::uint64_t count = 0;
  for (unsigned bit = 0; bit < width; ++bit) {
    std::uint64_t byte = (index * width + bit) / 8;
    unsigned within = (index * width + bit) % 8;
    if (width > 8) {
      byte = index * (width / 8) + (width / 8 - 1 - bit / 8);
      within = bit % 8;
    }
    count |= (std::to_integer<std::uint64_t>(block[byte]) >> within & 1) << bit;
  }
  return count;
}

std::vector<std::uint64_t> values_of(unsigned order) {
  const unsigned width = 1U << order;
  const std::uint64_t most = width == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << width) - 1;
  std::vector<std::uint64_t> values;
  for (std::uint64_t value = 0; value <= std::min<std::uint64_t>(most, 255); ++value) {
    values.push_back(value);
  }
  for (unsigned bit = 0; bit < width; ++bit) values.push_back(std::uint64_t{1} << bit);
  values.push_back(most);
  values.push_back(most - 1);
  values.push_back(most / 2);
  values.push_back(0x0123'4567'89ab'cdef & most);
  return values;
}

class Widths : public testing::TestWithParam<unsigned> {};
INSTANTIATE_TEST_SUITE_P(RefcountBlock, Widths, testing::Range(0U, 7U), [](const auto& chosen) {
  return std::to_string(1U << chosen.param) + "_bits";
});

TEST_P(Widths, ReadsEachCountWhereTheSpecificationHasIt) {
  const unsigned order = GetParam();
  std::vector<std::byte> block(block_bytes);
  std::uint64_t state = 1;
  for (std::byte& byte : block) {
    state = state * 6364136223846793005 + 1442695040888963407;
    byte = static_cast<std::byte>(state >> 56);
  }

  for (std::uint64_t i = 0; i < block_bytes * 8 >> order; ++i) {
    EXPECT_EQ(get_refcount(block, order, i), bit_by_bit(block, order, i)) << i;
  }
}

TEST_P(Widths, SettingOneChangesNoOther) {
  const unsigned order = GetParam();
  const std::uint64_t counts = block_bytes * 8 >> order;
  for (const std::byte background : {std::byte{0}, std::byte{0xff}, std::byte{0x5a}}) {
    for (std::uint64_t i = 0; i < counts; ++i) {
      for (const std::uint64_t value : values_of(order)) {
        std::vector<std::byte> block(block_bytes, background);
        const std::vector<std::byte> before = block;

        set_refcount(block, order, i, value);

        ASSERT_EQ(bit_by_bit(block, order, i), value) << "count " << i;
        for (std::uint64_t other = 0; other < counts; ++other) {
          if (other == i) continue;
          ASSERT_EQ(bit_by_bit(block, order, other), bit_by_bit(before, order, other))
              << "count " << other << " after setting " << i << " to " << value;
        }
      }
    }
  }
}

}  // namespace
