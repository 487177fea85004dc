#include "graph/base/bytes.h"

bool is_zero(std::span<const std::byte> bytes) {
  // The first bytes decide most of the time; a block equal to itself shifted by those is zero
  // throughout, and memcmp is the fastest scan there is.
  constexpr std::size_t probe = 16;
  const std::size_t head = bytes.size() < probe ? bytes.size() : probe;
  for (std::size_t i = 0; i < head; ++i) {
    if (bytes[i] != std::byte{0}) return false;
  }
  return bytes.size() <= probe ||
         std::memcmp(bytes.data(), bytes.data() + probe, bytes.size() - probe) == 0;
}
