#include "graph/sparse_bits.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>
#include <iterator>

namespace graph {
namespace {

using Bytes = std::span<std::uint8_t>;
using ConstBytes = std::span<const std::uint8_t>;

// The bits of byte `index` that lie in [start, end).
std::uint8_t mask_of(std::uint64_t index, std::uint64_t start, std::uint64_t end) {
  const std::uint64_t first = start > index * 8 ? start - index * 8 : 0;
  const std::uint64_t last = std::min<std::uint64_t>(end - index * 8, 8);
  return static_cast<std::uint8_t>((0xffU << first) & (0xffU >> (8 - last)));
}

void set_bits(Bytes bytes, std::uint64_t start, std::uint64_t end, Bit value) {
  for (std::uint64_t i = start / 8; i * 8 < end; ++i) {
    const std::uint8_t mask = mask_of(i, start, end);
    bytes[i] = static_cast<std::uint8_t>(value == Bit::one ? bytes[i] | mask : bytes[i] & ~mask);
  }
}

std::uint32_t count_bits(ConstBytes bytes, std::uint64_t start, std::uint64_t end) {
  std::uint32_t ones = 0;
  for (std::uint64_t i = start / 8; i * 8 < end; ++i) {
    const auto kept = static_cast<std::uint8_t>(bytes[i] & mask_of(i, start, end));
    ones += static_cast<std::uint32_t>(std::popcount(kept));
  }
  return ones;
}

// How many bits from `start` on, up to `end`, are like the one at `start`.
std::uint64_t like_first(ConstBytes bytes, std::uint64_t start, std::uint64_t end) {
  const bool one = (bytes[start / 8] >> (start % 8) & 1) != 0;
  std::uint64_t at = start;
  while (at < end) {
    const std::uint8_t byte = one ? bytes[at / 8] : static_cast<std::uint8_t>(~bytes[at / 8]);
    const auto rest = static_cast<std::uint8_t>(byte >> (at % 8));
    const auto same = static_cast<std::uint64_t>(std::countr_one(rest));
    at += same;
    if (at % 8 != 0) break;  // another bit stopped it
    if (same == 0) break;
  }
  return std::min(at, end) - start;
}

}  // namespace

SparseBits::SparseBits(std::uint64_t length) : length_(length) {
  if (length > 0) pieces_.emplace(0, Piece{});
}

std::uint64_t SparseBits::bits_of(std::uint64_t chunk) const {
  return std::min(chunk_bits, length_ - chunk * chunk_bits);
}

SparseBits::Part SparseBits::bits_of(Pieces::const_iterator piece) const {
  const auto next = std::next(piece);
  const std::uint64_t start = piece->first * chunk_bits;
  return {start, (next == pieces_.end() ? length_ : next->first * chunk_bits) - start};
}

std::uint64_t SparseBits::ones_of(Pieces::const_iterator piece) const {
  if (piece->second.bytes) return piece->second.ones;
  return piece->second.value == Bit::one ? bits_of(piece).length : 0;
}

SparseBits::Pieces::const_iterator SparseBits::piece_at(std::uint64_t chunk) const {
  return std::prev(pieces_.upper_bound(chunk));
}

// A piece starts at `chunk` afterwards, unless that is the end.
SparseBits::Pieces::iterator SparseBits::cut(std::uint64_t chunk) {
  if (chunk >= chunks()) return pieces_.end();
  const auto there = std::prev(pieces_.upper_bound(chunk));
  if (there->first == chunk) return there;
  assert(!there->second.bytes);
  Piece rest;
  rest.value = there->second.value;
  return pieces_.emplace_hint(std::next(there), chunk, std::move(rest));
}

// The piece that starts at `chunk` and those beside it become one where they are alike.
void SparseBits::join(std::uint64_t chunk) {
  const auto alike = [](const Piece& a, const Piece& b) {
    return !a.bytes && !b.bytes && a.value == b.value;
  };
  auto here = pieces_.find(chunk);
  const auto next = std::next(here);
  if (next != pieces_.end() && alike(here->second, next->second)) pieces_.erase(next);
  if (here == pieces_.begin()) return;
  if (alike(std::prev(here)->second, here->second)) pieces_.erase(here);
}

void SparseBits::fill_chunks(std::uint64_t from, std::uint64_t to, Bit value) {
  if (from >= to) return;
  const auto end = cut(to);
  auto here = cut(from);
  while (here != end) {
    ones_ -= ones_of(here);
    here = pieces_.erase(here);
  }
  Piece whole;
  whole.value = value;
  const auto made = pieces_.emplace(from, std::move(whole)).first;
  ones_ += ones_of(made);
  join(from);
}

// The bytes of a chunk that is a piece of its own from now on, until counted().
SparseBits::Bytes& SparseBits::bytes_of(std::uint64_t chunk) {
  cut(chunk + 1);
  const auto here = cut(chunk);
  Piece& piece = here->second;
  if (!piece.bytes) {
    piece.ones = static_cast<std::uint32_t>(ones_of(here));
    piece.bytes = std::make_unique<Bytes>();
    if (piece.value == Bit::one) set_bits(*piece.bytes, 0, bits_of(chunk), Bit::one);
  }
  return *piece.bytes;
}

// The bytes of `chunk` have changed: counts, and keeps them only where they differ.
void SparseBits::counted(std::uint64_t chunk) {
  Piece& piece = pieces_.find(chunk)->second;
  const std::uint64_t bits = bits_of(chunk);
  ones_ -= piece.ones;
  piece.ones = count_bits(*piece.bytes, 0, bits);
  ones_ += piece.ones;
  if (piece.ones != 0 && piece.ones != bits) return;
  piece.value = piece.ones == 0 ? Bit::zero : Bit::one;
  piece.bytes.reset();
  join(chunk);
}

// `part` counts from the start of the chunk.
void SparseBits::fill_within(std::uint64_t chunk, Part part, Bit value) {
  const auto there = piece_at(chunk);
  if (!there->second.bytes && there->second.value == value) return;
  Bytes& bytes = bytes_of(chunk);
  Piece& piece = pieces_.find(chunk)->second;
  const auto end = part.end();
  const std::uint32_t before = count_bits(bytes, part.start, end);
  const auto after = value == Bit::one ? static_cast<std::uint32_t>(part.length) : 0;
  if (before == after) return;
  set_bits(bytes, part.start, end, value);
  piece.ones = piece.ones - before + after;
  ones_ = ones_ - before + after;
  if (piece.ones == 0 || piece.ones == bits_of(chunk)) counted(chunk);
}

void SparseBits::fill(Part part, Bit value) {
  assert(part.start <= length_ && part.length <= length_ - part.start);
  while (part.length > 0) {
    const std::uint64_t chunk = part.start / chunk_bits;
    const std::uint64_t into = part.start % chunk_bits;
    std::uint64_t done = std::min(bits_of(chunk) - into, part.length);
    if (done < bits_of(chunk)) {
      fill_within(chunk, {into, done}, value);
    } else {
      const std::uint64_t to = part.end() == length_ ? chunks() : part.end() / chunk_bits;
      fill_chunks(chunk, to, value);
      done = std::min(to * chunk_bits, length_) - part.start;
    }
    part = {part.start + done, part.length - done};
  }
}

std::uint64_t SparseBits::ones_in(Part part) const {
  assert(part.start <= length_ && part.length <= length_ - part.start);
  if (part.length == 0) return 0;
  std::uint64_t ones = 0;
  for (auto piece = piece_at(part.start / chunk_bits); piece != pieces_.end(); ++piece) {
    const Part there = bits_of(piece);
    if (there.start >= part.end()) break;
    const std::uint64_t start = std::max(there.start, part.start);
    const std::uint64_t end = std::min(there.end(), part.end());
    if (piece->second.bytes) {
      ones += count_bits(*piece->second.bytes, start - there.start, end - there.start);
    } else if (piece->second.value == Bit::one) {
      ones += end - start;
    }
  }
  return ones;
}

SparseBits::Run SparseBits::run_at(std::uint64_t at) const {
  assert(at < length_);
  Run run;
  for (auto piece = piece_at(at / chunk_bits); piece != pieces_.end(); ++piece) {
    const Part there = bits_of(piece);
    const std::uint64_t from = std::max(at, there.start) - there.start;
    Bit value = piece->second.value;
    std::uint64_t same = there.length - from;
    if (const Bytes* bytes = piece->second.bytes.get()) {
      value = ((*bytes)[from / 8] >> (from % 8) & 1) != 0 ? Bit::one : Bit::zero;
      same = like_first(*bytes, from, there.length);
    }
    if (run.length == 0) run.value = value;
    if (value != run.value) break;
    run.length += same;
    if (from + same < there.length) break;
  }
  return run;
}

void SparseBits::add(const SparseBits& other) {
  assert(other.length_ == length_);
  if (&other == this) return;
  for (auto piece = other.pieces_.begin(); piece != other.pieces_.end(); ++piece) {
    if (!piece->second.bytes) {
      if (piece->second.value == Bit::one) fill(other.bits_of(piece), Bit::one);
      continue;
    }
    const std::uint64_t chunk = piece->first;
    if (const auto mine = piece_at(chunk); !mine->second.bytes && mine->second.value == Bit::one) {
      continue;
    }
    std::ranges::transform(*piece->second.bytes, bytes_of(chunk), bytes_of(chunk).begin(),
                           [](std::uint8_t a, std::uint8_t b) { return a | b; });
    counted(chunk);
  }
}

void SparseBits::resize(std::uint64_t length) {
  if (length < length_) {
    fill({length, length_ - length}, Bit::zero);
    length_ = length;
    pieces_.erase(pieces_.lower_bound(chunks()), pieces_.end());
    // what is left of a chunk may be all ones
    if (const auto last = pieces_.rbegin(); last != pieces_.rend() && last->second.bytes) {
      counted(last->first);
    }
  } else if (length > length_) {
    const std::uint64_t old = chunks();
    if (length_ % chunk_bits != 0 && piece_at(old - 1)->second.value == Bit::one) {
      bytes_of(old - 1);  // only a part of the chunk is ones from now on
    }
    length_ = length;
    if (chunks() == old) return;
    pieces_.emplace(old, Piece{});
    join(old);
  }
}

void SparseBits::store(std::uint64_t start, std::span<std::byte> out) const {
  assert(start % 8 == 0);
  std::ranges::fill(out, std::byte{0});
  if (out.empty() || start >= length_) return;
  const std::uint64_t end = std::min(length_, start + std::uint64_t{out.size()} * 8);
  for (auto piece = piece_at(start / chunk_bits); piece != pieces_.end(); ++piece) {
    const Part there = bits_of(piece);
    if (there.start >= end) break;
    const std::uint64_t from = std::max(there.start, start);
    const std::uint64_t to = std::min(there.end(), end);
    std::byte* const target = out.data() + (from - start) / 8;
    if (const Bytes* bytes = piece->second.bytes.get()) {
      std::memcpy(target, bytes->data() + (from - there.start) / 8, (to - from + 7) / 8);
    } else if (piece->second.value == Bit::one) {
      std::memset(target, 0xff, (to - from) / 8);
      if (to % 8 != 0)
        out[(to - start) / 8] = std::byte{static_cast<std::uint8_t>((1U << to % 8) - 1)};
    }
  }
}

void SparseBits::load(std::uint64_t start, std::span<const std::byte> in) {
  assert(start % 8 == 0);
  const std::uint64_t stop = std::min(length_, start + std::uint64_t{in.size()} * 8);
  for (std::uint64_t at = start; at < stop;) {
    const std::uint64_t chunk = at / chunk_bits;
    const std::uint64_t end = std::min(stop, chunk * chunk_bits + bits_of(chunk));
    Bytes& bytes = bytes_of(chunk);
    const std::uint64_t into = at % chunk_bits;
    const std::uint64_t whole = (end - at) / 8;
    std::memcpy(bytes.data() + into / 8, in.data() + (at - start) / 8, whole);
    if (const std::uint64_t odd = (end - at) % 8; odd != 0) {  // only at the very end
      const auto last = static_cast<std::uint8_t>(in[(at - start) / 8 + whole]);
      bytes[into / 8 + whole] = static_cast<std::uint8_t>(last & ((1U << odd) - 1));
    }
    counted(chunk);
    at = end;
  }
}

std::size_t SparseBits::chunks_in_memory() const {
  return static_cast<std::size_t>(std::ranges::count_if(
      pieces_, [](const auto& entry) { return entry.second.bytes != nullptr; }));
}

}  // namespace graph
