// metadata_map.h - the host clusters that hold metadata, so that neither data nor a new table is
// ever written over it (QF-10). Always on: a look costs a hash and a bit.
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <unordered_map>

#include "graph/base/bytes.h"

namespace formats::qcow2 {

class MetadataMap {
 public:
  explicit MetadataMap(unsigned cluster_bits) : cluster_bits_(cluster_bits) {}

  // False when one of the clusters that `range` touches was in already: two tables in one place.
  bool add(Range range);
  void remove(Range range);
  // Does any cluster that `range` touches hold metadata?
  bool hits(Range range) const;
  std::size_t memory() const;  // bytes, about

 private:
  static constexpr std::uint64_t chunk_clusters = 2048;
  using Chunk = std::bitset<chunk_clusters>;
  std::uint64_t first(Range range) const { return range.offset >> cluster_bits_; }
  std::uint64_t last(Range range) const { return (range.end() - 1) >> cluster_bits_; }

  const unsigned cluster_bits_;
  std::unordered_map<std::uint64_t, Chunk> chunks_;
};

}  // namespace formats::qcow2
