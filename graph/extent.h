// extent.h - the answer to a format's one question: where do these bytes live?
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace graph {

class Edge;

enum class ExtentKind : std::uint8_t {
  data,    // stored as they are, at `offset` of the child `via`
  zero,    // read as zeroes
  below,   // the layer below has them; without one they read as zeroes
  opaque,  // stored, but only the node itself can make them out (compressed, encrypted, filtered)
};

struct Extent {
  std::uint64_t length = 0;  // bytes, never 0
  ExtentKind kind = ExtentKind::opaque;
  bool allocated = false;    // the mapped layer answers for it, rather than what lies below
  bool provisioned = false;  // a zero extent whose space is reserved
  bool settled = false;      // what lies beneath `via` was asked already
  Edge* via =
      nullptr;  // data, below: the child it is read through; null: the mapped node is the bottom
  std::uint64_t offset = 0;  // data, below, provisioned: bytes of that child, or of the node itself
};

// Consecutive extents from the start of the range asked for: at least one, and nothing beyond the
// range. They may cover less than it. Where they point to stays as it is while `pin` is held.
struct Extents {
  std::vector<Extent> list;
  std::shared_ptr<void> pin;
};

// How much trouble an answer is worth.
enum class MapDepth : std::uint8_t {
  zeroes,      // find out what reads as zero, asking the file system where needed
  allocation,  // only which layer answers (S-3): never descends into a protocol node
};

}  // namespace graph
