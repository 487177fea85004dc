// check_repair.h - the repairs of check.h, each in an order that makes nothing worse when it is cut
// off: what is raised or cleared is durable before what relies on it.
#pragma once

#include <map>

#include "formats/qcow2/check_scan.h"

namespace formats::qcow2 {

class RepairShop {
 public:
  // Repairs what `scan` has counted and compared. `header` follows the header on the medium.
  RepairShop(Medium& file, Header& header, Scan& scan)
      : file_(file), header_(header), geometry_(header.geometry), scan_(scan) {}

  // Counts that are too high become right.
  Task<> repair_leaks() { return store_counts(Which::leaks); }
  // All counts become right, the snapshot table complete, the flags of the active mapping right.
  // Errors: no_space; the file's.
  Task<> repair_all();
  // The flags alone, where all counts are right.
  Task<> repair_flags();

 private:
  enum class Which : std::uint8_t { leaks, all };
  enum class Flags : std::uint8_t { clear, set };
  Task<> store_counts(Which which);
  Task<> walk_flags(Flags what);
  // Is the flag of an entry for the cluster at `offset` to be changed?
  Task<bool> is_wrong(std::uint64_t entry, Flags what);
  Task<> walk_l2_flags(std::uint64_t offset, Flags what);
  Task<> rebuild();
  Result<> place_blocks();
  Result<> place_table();
  void place_block_for(std::uint64_t cluster);
  void forget_old_structure();
  Task<> write_structure();
  // A new snapshot table, which nothing leads to yet; 0: none is needed.
  Task<std::uint64_t> write_snapshots();
  Task<> switch_snapshots(std::uint64_t offset);
  void count(std::uint64_t first, std::uint64_t n);
  void discount(std::uint64_t offset, std::uint64_t bytes);
  Result<> check_room(std::uint64_t end_cluster) const;
  std::uint64_t bytes(std::uint64_t clusters) const { return clusters << geometry_.cluster_bits; }

  Medium& file_;
  Header& header_;
  const Geometry geometry_;
  Scan& scan_;
  // Of a new refcount structure: the cluster of each block by its index, and the table.
  std::map<std::uint64_t, std::uint64_t> blocks_;
  std::uint64_t free_from_ = 1;
  std::uint64_t table_at_ = 0;  // cluster
  std::uint64_t table_clusters_ = 0;
};

// The image is neither dirty nor corrupt any more.
Task<> mark_clean(Medium& file, Header& header);

}  // namespace formats::qcow2
