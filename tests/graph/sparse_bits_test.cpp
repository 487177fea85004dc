#include "graph/sparse_bits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "tests/support/seed.h"

namespace {

using graph::Bit;
using graph::SparseBits;

constexpr std::uint64_t chunk = SparseBits::chunk_bits;

// The same, as simply as can be.
class Model {
 public:
  explicit Model(std::uint64_t length) : bits_(length) {}
  void fill(SparseBits::Part part, Bit value) {
    for (std::uint64_t i = part.start; i < part.end(); ++i) bits_[i] = value == Bit::one;
  }
  void add(const Model& other) {
    for (std::size_t i = 0; i < bits_.size(); ++i) bits_[i] = bits_[i] || other.bits_[i];
  }
  void load(std::uint64_t start, const std::vector<std::byte>& bytes) {
    for (std::uint64_t i = start; i < std::min<std::uint64_t>(size(), start + bytes.size() * 8);
         ++i) {
      bits_[i] = (static_cast<unsigned>(bytes[(i - start) / 8]) >> (i - start) % 8 & 1) != 0;
    }
  }
  std::vector<std::byte> store(std::uint64_t start, std::size_t count) const {
    std::vector<std::byte> bytes(count);
    for (std::uint64_t i = start; i < std::min<std::uint64_t>(size(), start + count * 8); ++i) {
      if (bits_[i]) bytes[(i - start) / 8] |= std::byte{1} << static_cast<int>((i - start) % 8);
    }
    return bytes;
  }
  std::uint64_t ones_in(SparseBits::Part part) const {
    const auto from = bits_.begin() + static_cast<std::ptrdiff_t>(part.start);
    return static_cast<std::uint64_t>(
        std::count(from, from + static_cast<std::ptrdiff_t>(part.length), true));
  }
  std::uint64_t run_at(std::uint64_t at) const {
    std::uint64_t end = at;
    while (end < size() && bits_[end] == bits_[at]) ++end;
    return end - at;
  }
  void resize(std::uint64_t length) { bits_.resize(length); }
  std::uint64_t size() const { return bits_.size(); }
  Bit at(std::uint64_t i) const { return bits_[i] ? Bit::one : Bit::zero; }

 private:
  std::vector<bool> bits_;
};

class Trial {
 public:
  explicit Trial(std::uint64_t seed) : random_(seed) {}

  void run(int steps) {
    for (int i = 0; i < steps && !testing::Test::HasFailure(); ++i) {
      step();
      check();
    }
  }

 private:
  std::uint64_t draw(std::uint64_t n) { return random_() % n; }
  // Ends of chunks and bytes are where mistakes are.
  std::uint64_t place(std::uint64_t end) {
    if (end == 0) return 0;
    std::uint64_t at = draw(end + 1);
    if (draw(3) == 0) at = std::min(end, at / chunk * chunk);
    if (draw(5) == 0) at = std::min(end, at / 8 * 8);
    return at;
  }
  SparseBits::Part part() {
    const std::uint64_t a = place(model_.size());
    const std::uint64_t b =
        draw(3) == 0 ? std::min(model_.size(), a + draw(40)) : place(model_.size());
    return {std::min(a, b), std::max(a, b) - std::min(a, b)};
  }
  std::vector<std::byte> any_bytes(std::size_t count) {
    std::vector<std::byte> bytes(count, draw(2) == 0 ? std::byte{0xff} : std::byte{0});
    if (draw(3) != 0) {
      for (std::byte& byte : bytes) byte = static_cast<std::byte>(draw(256));
    }
    return bytes;
  }

  void step() {
    switch (draw(12)) {
      case 0: {
        const std::uint64_t length =
            draw(2) == 0 ? place(4 * chunk) : std::min(4 * chunk, model_.size() + draw(50));
        bits_.resize(length);
        model_.resize(length);
        break;
      }
      case 1: {
        const std::uint64_t start = place(model_.size()) / 8 * 8;
        const std::vector<std::byte> bytes = any_bytes(draw(2) == 0 ? draw(20) : draw(9000));
        bits_.load(start, bytes);
        model_.load(start, bytes);
        break;
      }
      case 2: {
        SparseBits other(model_.size());
        Model same(model_.size());
        for (int i = 0; i < 3; ++i) {
          const SparseBits::Part some = part();
          other.fill(some, Bit::one);
          same.fill(some, Bit::one);
        }
        bits_.add(other);
        model_.add(same);
        break;
      }
      default: {
        const SparseBits::Part some = part();
        const Bit value = draw(2) == 0 ? Bit::zero : Bit::one;
        bits_.fill(some, value);
        model_.fill(some, value);
      }
    }
  }

  void check() {
    ASSERT_EQ(bits_.length(), model_.size());
    ASSERT_EQ(bits_.ones(), model_.ones_in({0, model_.size()}));
    const SparseBits::Part some = part();
    ASSERT_EQ(bits_.ones_in(some), model_.ones_in(some));
    if (some.start < model_.size()) {
      const SparseBits::Run run = bits_.run_at(some.start);
      ASSERT_EQ(run.value, model_.at(some.start));
      ASSERT_EQ(run.length, model_.run_at(some.start));
    }
    const std::uint64_t start = place(model_.size()) / 8 * 8;
    std::vector<std::byte> bytes(draw(6000), std::byte{0x5a});
    bits_.store(start, bytes);
    ASSERT_EQ(bytes, model_.store(start, bytes.size()));
    ASSERT_LE(bits_.chunks_in_memory(), (model_.size() + chunk - 1) / chunk);
  }

  std::mt19937_64 random_;
  SparseBits bits_{0};
  Model model_{0};
};

TEST(SparseBits, AgreeWithARowOfBooleans) {
  const std::uint64_t first = test::seed();
  for (std::uint64_t seed = first; seed < first + 20 && !HasFailure(); ++seed) {
    SCOPED_TRACE(test::repeat_with(seed));
    Trial(seed).run(200);
  }
}

TEST(SparseBits, CostNothingWhereAllIsAlike) {
  SparseBits bits(std::uint64_t{1} << 54);
  EXPECT_EQ(bits.chunks_in_memory(), 0U);

  bits.fill({0, bits.length()}, Bit::one);
  EXPECT_EQ(bits.ones(), std::uint64_t{1} << 54);
  EXPECT_EQ(bits.chunks_in_memory(), 0U);
  EXPECT_EQ(bits.run_at(12345).length, bits.length() - 12345);

  bits.fill({chunk + 7, 1}, Bit::zero);
  bits.fill({std::uint64_t{1} << 53, 1}, Bit::zero);
  EXPECT_EQ(bits.chunks_in_memory(), 2U);

  bits.fill({chunk + 7, 1}, Bit::one);
  EXPECT_EQ(bits.chunks_in_memory(), 1U);
}

// 1 TiB in granules of 64 KiB, each second one dirty: one bit for each.
TEST(SparseBits, CostABitForEachAtMost) {
  const std::uint64_t length = (std::uint64_t{1} << 40) / (64 * 1024);
  SparseBits bits(length);
  const std::vector<std::byte> every_second(4096, std::byte{0x55});
  for (std::uint64_t at = 0; at < length; at += chunk) bits.load(at, every_second);
  EXPECT_EQ(bits.ones(), length / 2);
  EXPECT_EQ(bits.chunks_in_memory() * chunk / 8, std::size_t{2} * 1024 * 1024);
}

}  // namespace
