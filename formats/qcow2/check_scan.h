// check_scan.h - one look at all metadata of an image: who refers to which cluster, and what is
// wrong with the entries that say so. Part of check.h.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "formats/qcow2/check.h"
#include "formats/qcow2/read_metadata.h"
#include "formats/qcow2/reference_counts.h"
#include "formats/qcow2/stored_refcounts.h"

namespace formats::qcow2 {

class Scan {
 public:
  enum class Fix : std::uint8_t { nothing, entries };

  // Lifetime: all outlive the scan.
  Scan(Medium& file, const Header& header, const CheckOptions& options);

  // Counts all references; `report` has what is wrong with them. With Fix::entries, entries of
  // allocated zeroes that can't be where they are become plain zeroes.
  // Errors: the file's, or corrupt: then what can't be read was counted as a check error.
  Task<> count(Fix fix);
  // Compares the counts with those that the image keeps.
  Task<> compare();
  // Compares the flags that say that a cluster has one reference.
  Task<> compare_flags();

  CheckReport report;
  ReferenceCounts counts;  // all of them, be they more than the image can count
  StoredRefcounts stored;
  SnapshotTable snapshots;
  // The refcount structure can't be repaired where it is.
  bool needs_rebuild = false;
  bool has_uncounted = false;                  // clusters in use that count as free
  std::vector<std::uint64_t> refcount_blocks;  // offsets of those that were counted
  bool is_table_counted = false;
  bool is_snapshot_table_counted = false;

  // What the image should say of a cluster.
  std::uint64_t wanted(std::uint64_t cluster) const {
    return std::min(counts.get(cluster), geometry_.refcount_max());
  }
  std::uint64_t end_cluster() const { return end_cluster_; }
  // Does the range lie over a table other than L2?
  bool hits_tables(Range range) const;
  // False when the range leaves the file by more than a part of its last cluster, and was not
  // counted.
  bool add_reference(std::uint64_t offset, std::uint64_t bytes);

  template <class... Args>
  void say(fmt::format_string<Args...> format, Args&&... args) const {
    if (options_.found) options_.found(fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  enum class Kind : std::uint8_t { active, snapshot };
  Task<> read_tables();
  Task<> count_l1(std::uint64_t offset, std::uint64_t entries, Kind kind);
  Task<> count_l2(std::uint64_t offset, Kind kind);
  // True when the entry was made zero, and refers to nothing any more.
  Task<bool> count_standard(std::span<std::byte> entry, std::uint64_t at, Kind kind);
  void count_compressed(std::uint64_t entry, std::uint64_t bitmap, Kind kind);
  Task<> count_snapshots();
  Task<> count_bitmaps();
  Task<> count_bitmap(const Bitmap& bitmap);
  void count_refcount_blocks();
  void compare_one(std::uint64_t cluster, std::uint64_t kept);
  Task<> compare_l2_flags(std::uint64_t offset);
  Task<> advance();
  template <class... Args>
  void corrupt(fmt::format_string<Args...> format, Args&&... args) {
    ++report.corruptions;
    say(format, std::forward<Args>(args)...);
  }

  Medium& file_;
  const Header& header_;
  const Geometry& geometry_;
  const CheckOptions& options_;
  Fix fix_ = Fix::nothing;
  std::uint64_t end_cluster_ = 0;  // behind the last one of the file
  std::uint64_t highest_ = 0;      // the last cluster in use
  std::uint64_t next_data_ = 0;    // where the next data cluster would not be a fragment
  std::unordered_set<std::uint64_t> block_clusters_;
  std::uint64_t done_ = 0;  // of progress: L1 entries
  std::uint64_t total_ = 0;
};

// What entries of L2 tables say, as far as counting goes.
enum class ClusterKind : std::uint8_t { unallocated, zero, zero_allocated, normal, compressed };
ClusterKind cluster_kind(std::uint64_t entry, const Header& header);

}  // namespace formats::qcow2
