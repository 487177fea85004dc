// geometry.h - the arithmetic of an image: how big its units are, and which table entry stands for
// which byte. Fixed once the header is read.
#pragma once

#include <cassert>
#include <cstdint>

#include "formats/qcow2/layout.h"

namespace formats::qcow2 {

struct Geometry {
  unsigned cluster_bits = 16;
  unsigned refcount_order = 4;
  bool extended_l2 = false;

  std::uint64_t cluster_size() const { return std::uint64_t{1} << cluster_bits; }
  std::uint64_t in_cluster(std::uint64_t offset) const { return offset & (cluster_size() - 1); }
  std::uint64_t cluster_start(std::uint64_t offset) const { return offset & ~(cluster_size() - 1); }
  // Clusters that `bytes` take.
  std::uint64_t clusters(std::uint64_t bytes) const {
    return (bytes >> cluster_bits) + (in_cluster(bytes) != 0 ? 1 : 0);
  }
  bool is_cluster_aligned(std::uint64_t offset) const { return in_cluster(offset) == 0; }

  // "Extended L2 Entries": an entry has 8 or 16 bytes.
  unsigned l2_entry_bytes() const { return extended_l2 ? 16 : 8; }
  unsigned l2_bits() const { return cluster_bits - (extended_l2 ? 4 : 3); }
  std::uint64_t l2_entries() const { return std::uint64_t{1} << l2_bits(); }
  std::uint64_t l1_index(std::uint64_t guest) const { return guest >> (cluster_bits + l2_bits()); }
  std::uint64_t l2_index(std::uint64_t guest) const {
    return (guest >> cluster_bits) & (l2_entries() - 1);
  }
  // Guest bytes that one L2 table describes.
  std::uint64_t l2_coverage() const { return std::uint64_t{1} << (cluster_bits + l2_bits()); }
  // L1 entries that a disk of `size` bytes needs.
  std::uint64_t l1_entries(std::uint64_t size) const {
    return (size >> (cluster_bits + l2_bits())) + ((size & (l2_coverage() - 1)) != 0 ? 1 : 0);
  }
  // The longest disk whose L1 table is not too large.
  std::uint64_t size_max() const {
    const unsigned bits = cluster_bits + l2_bits() + 22;  // 2^22 entries are 32 MiB
    return bits >= 63 ? (std::uint64_t{1} << 63) - 1 : std::uint64_t{1} << bits;
  }

  unsigned subclusters() const { return extended_l2 ? subclusters_max : 1; }
  std::uint64_t subcluster_size() const { return cluster_size() / subclusters(); }

  unsigned refcount_bits() const { return 1U << refcount_order; }
  std::uint64_t refcount_max() const {
    return refcount_bits() == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << refcount_bits()) - 1;
  }
  // Clusters that one refcount block counts.
  std::uint64_t refcount_block_entries() const {
    return std::uint64_t{1} << (cluster_bits + 3 - refcount_order);
  }

  // "Compressed Clusters Descriptor": the width of the offset, x = 62 - (cluster_bits - 8).
  unsigned compressed_offset_bits() const { return 62 - (cluster_bits - 8); }
  bool operator==(const Geometry&) const = default;
};

}  // namespace formats::qcow2
