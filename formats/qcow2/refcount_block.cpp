#include "formats/qcow2/refcount_block.h"

#include <cassert>
#include <cstring>

namespace formats::qcow2 {
namespace {

template <class T>
std::uint64_t load(std::span<const std::byte> block, std::uint64_t index) {
  Be<T> value;
  assert((index + 1) * sizeof(value) <= block.size());
  std::memcpy(&value, block.data() + index * sizeof(value), sizeof(value));
  return value.get();
}

template <class T>
void store(std::span<std::byte> block, std::uint64_t index, std::uint64_t count) {
  const Be<T> value = static_cast<T>(count);
  assert(value.get() == count && (index + 1) * sizeof(value) <= block.size());
  std::memcpy(block.data() + index * sizeof(value), &value, sizeof(value));
}

// Where a count narrower than a byte stands.
struct Bits {
  std::uint64_t byte;
  unsigned shift;
  unsigned mask;
  Bits(unsigned order, std::uint64_t index)
      : byte(index >> (3 - order)),
        shift(static_cast<unsigned>(index & ((1U << (3 - order)) - 1)) << order),
        mask((1U << (1U << order)) - 1) {}
};

}  // namespace

std::uint64_t get_refcount(std::span<const std::byte> block, unsigned order, std::uint64_t index) {
  switch (order) {
    case 3:
      return load<std::uint8_t>(block, index);
    case 4:
      return load<std::uint16_t>(block, index);
    case 5:
      return load<std::uint32_t>(block, index);
    case 6:
      return load<std::uint64_t>(block, index);
    default: {
      const Bits at(order, index);
      assert(order < 3 && at.byte < block.size());
      return std::to_integer<unsigned>(block[at.byte]) >> at.shift & at.mask;
    }
  }
}

void set_refcount(std::span<std::byte> block, unsigned order, std::uint64_t index,
                  std::uint64_t count) {
  switch (order) {
    case 3:
      return store<std::uint8_t>(block, index, count);
    case 4:
      return store<std::uint16_t>(block, index, count);
    case 5:
      return store<std::uint32_t>(block, index, count);
    case 6:
      return store<std::uint64_t>(block, index, count);
    default: {
      const Bits at(order, index);
      assert(order < 3 && at.byte < block.size() && count <= at.mask);
      const unsigned old = std::to_integer<unsigned>(block[at.byte]);
      block[at.byte] = static_cast<std::byte>((old & ~(at.mask << at.shift)) | (count << at.shift));
    }
  }
}

}  // namespace formats::qcow2
