// block_status.h - what a range of a node holds, through all layers: data, zeroes, and who answers
// for it. Rules S-1 to S-8 of docs/architecture.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "graph/edge.h"

namespace graph {

struct StatusExtent {
  std::uint64_t length = 0;  // bytes
  bool data = true;          // space is reserved; without it, a hole (S-4)
  bool zero = false;         // reads as zeroes
  std::uint32_t depth = 1;   // which layer answers: 1 the top, 0 none
  bool same_status(const StatusExtent& other) const {
    return data == other.data && zero == other.zero && depth == other.depth;
  }
};
using StatusExtents = std::vector<StatusExtent>;

// Consecutive extents from range.offset on, neighbours differing; at least one, at most
// `extents_max`, none beyond the range. Where an answer is finer than the node's request alignment,
// the whole unit counts as data (S-1, S-2). Requires: the range is not empty and inside the node;
// extents_max > 0.
Task<StatusExtents> block_status(Edge& edge, Range range, MapDepth depth, std::size_t extents_max);

}  // namespace graph
