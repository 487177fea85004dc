// sparse_bits.h - a long row of bits, most of which are like their neighbours: stretches of equal
// bits cost a few bytes, the rest one bit for each bit, in chunks of 4 KiB.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>

namespace graph {

enum class Bit : std::uint8_t { zero, one };

class SparseBits {
 public:
  // Bits, not bytes.
  struct Part {
    std::uint64_t start = 0;
    std::uint64_t length = 0;
    std::uint64_t end() const { return start + length; }
  };
  struct Run {
    std::uint64_t length = 0;
    Bit value = Bit::zero;
  };
  // All of one value, or a whole chunk of either.
  static constexpr std::uint64_t chunk_bits = 32768;

  // All zero.
  explicit SparseBits(std::uint64_t length);

  std::uint64_t length() const { return length_; }
  std::uint64_t ones() const { return ones_; }
  // Requires of all below: what they name lies inside.
  std::uint64_t ones_in(Part part) const;
  // The longest run of equal bits that starts at `at`.
  Run run_at(std::uint64_t at) const;
  void fill(Part part, Bit value);
  // Ones where either has one. Requires: both have the same length.
  void add(const SparseBits& other);
  // What is new is zero.
  void resize(std::uint64_t length);

  // As bits are stored: bit i is bit i % 8 of byte i / 8, the least significant first. `start` is a
  // multiple of 8. Bits of `bytes` past the end are neither read nor written but as zeroes.
  void store(std::uint64_t start, std::span<std::byte> bytes) const;
  void load(std::uint64_t start, std::span<const std::byte> bytes);

  std::size_t chunks_in_memory() const;

 private:
  using Bytes = std::array<std::uint8_t, chunk_bits / 8>;
  // From the chunk that is its key to the next key. With `bytes` it is a single chunk.
  struct Piece {
    Bit value = Bit::zero;  // without bytes
    std::unique_ptr<Bytes> bytes;
    std::uint32_t ones = 0;  // in bytes
  };
  using Pieces = std::map<std::uint64_t, Piece>;

  std::uint64_t chunks() const { return (length_ + chunk_bits - 1) / chunk_bits; }
  std::uint64_t bits_of(std::uint64_t chunk) const;
  Part bits_of(Pieces::const_iterator piece) const;
  std::uint64_t ones_of(Pieces::const_iterator piece) const;
  Pieces::const_iterator piece_at(std::uint64_t chunk) const;
  Pieces::iterator cut(std::uint64_t chunk);
  void join(std::uint64_t chunk);
  void fill_chunks(std::uint64_t from, std::uint64_t to, Bit value);
  void fill_within(std::uint64_t chunk, Part part, Bit value);
  Bytes& bytes_of(std::uint64_t chunk);
  void counted(std::uint64_t chunk);

  std::uint64_t length_;
  std::uint64_t ones_ = 0;
  Pieces pieces_;  // cover all chunks; neighbours of one value are one piece
};

}  // namespace graph
