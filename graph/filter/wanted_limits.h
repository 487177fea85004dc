// wanted_limits.h - the limits that a blkdebug node has of its own, over those of its image: larger
// units, shorter requests. QEMU's keys.
#pragma once

#include "graph/driver.h"

namespace graph {

// In bytes; 0: as the image has it.
struct WantedLimits {
  std::uint64_t align = 0;
  std::uint64_t max_transfer = 0;
  std::uint64_t opt_write_zero = 0;
  std::uint64_t max_write_zero = 0;
  std::uint64_t opt_discard = 0;
  std::uint64_t max_discard = 0;

  // The stricter of these and those of the image.
  Limits over(Limits image) const;
};

// Units are powers of two; each value is a multiple of the unit that it is counted in.
// Errors: invalid_argument with the position of the key.
Result<WantedLimits> read_wanted_limits(const OpenContext& context, const Limits& image);

}  // namespace graph
