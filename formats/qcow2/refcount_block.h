// refcount_block.h - single counts in the bytes of a refcount block.
// Spec: qcow2.rst, "Host cluster management".
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "graph/base/bytes.h"

namespace formats::qcow2 {

// `order`: log2 of a count's width in bits, 0 to 6. Counts narrower than a byte are packed from its
// least significant bit. Requires: the block has more than `index` counts.
std::uint64_t get_refcount(std::span<const std::byte> block, unsigned order, std::uint64_t index);
// Requires: `count` fits.
void set_refcount(std::span<std::byte> block, unsigned order, std::uint64_t index,
                  std::uint64_t count);

}  // namespace formats::qcow2
