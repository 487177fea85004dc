// refcounts.h - who counts the references to each host cluster, and finds free ones. Counts change
// in memory at once; the flush (flush.cpp) writes them, before anything that refers to what they
// count. Rules QR-1 to QR-8 of docs/qcow2.md. Spec: qcow2.rst, "Host cluster management".
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <vector>

#include "formats/qcow2/header.h"
#include "formats/qcow2/health.h"
#include "formats/qcow2/metadata_map.h"
#include "formats/qcow2/table_cache.h"

namespace formats::qcow2 {

// Consecutive host clusters, as bytes of the file.
struct HostRun {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  bool fresh = false;  // never used before: reads as zero on the medium
};

class Refcounts {
 public:
  // Lifetime: all that is passed outlives it.
  Refcounts(graph::Edge& file, const Geometry& geometry, Health& health, MetadataMap& metadata,
            std::size_t cache_bytes);

  // Reads the refcount table that the header tells of. Errors: corrupt, io_error.
  Task<> open(const Header& header);

  // Of the cluster at `host`. Errors: corrupt, io_error.
  Task<std::uint64_t> get(std::uint64_t host);

  // At least one cluster and at most `wanted`, consecutive, counted once. Errors: no_space when the
  // file is full and can't grow; corrupt when what counts as free holds metadata.
  Task<HostRun> allocate(std::uint64_t wanted_clusters);
  // All of them. For tables.
  Task<HostRun> allocate_table(std::uint64_t clusters);
  // Gives back at once what nothing on the medium refers to. Loading may fail: then it is leaked.
  asio::awaitable<void> release(HostRun run);

  // The end of the last cluster that is counted, in bytes. Errors: corrupt, io_error.
  Task<std::uint64_t> used_end();
  // The file was cut to `end` bytes: what is allocated behind that is fresh again.
  void forget_behind(std::uint64_t end);

  // One reference more or less to each cluster that `host` touches. A decrease must be safe: what
  // referred to the cluster is durably gone. Errors: invalid_argument when a count does not fit,
  // corrupt when it is 0 already.
  Task<> increase(Range host);
  Task<> decrease(Range host);

  // The flush. What was counted before freeze() is on its way to the medium when write() returns,
  // and found there once publish() has, too, and a flush after that.
  bool dirty() const { return blocks_.dirty() || !unpublished_.empty() || moved_; }
  std::size_t dirty_bytes() const { return blocks_.dirty_bytes(); }
  void freeze();
  Task<> write();
  bool wants_publishing() const { return !publishing_.empty() || moving_; }
  // Requires: what write() wrote is durable. The header's fields follow the table.
  struct Table {
    std::uint64_t offset = 0;
    std::uint32_t clusters = 0;
  };
  // The place of the table if it has moved: to be written into the header.
  std::optional<Table> moved_to() const;
  Task<> publish();
  void published();  // the header says so, too

  // A table that was moved away from, for whoever frees clusters when that is safe.
  std::vector<Range> take_left_behind() { return std::exchange(left_behind_, {}); }
  std::uint64_t table_offset() const { return table_offset_; }
  std::uint64_t table_clusters() const { return table_clusters_; }
  const std::vector<std::uint64_t>& table() const { return table_; }  // offsets of blocks, 0: none
  TableCache& blocks() { return blocks_; }
  const TableCache& blocks() const { return blocks_; }
  // The end of what was ever handed out, in bytes.
  std::uint64_t end() const { return fresh_from_ << geometry_.cluster_bits; }

 private:
  enum class Fit : std::uint8_t { some, all };
  // A count, with the slice that has it.
  struct Place {
    TableCache::Ref slice;
    std::uint64_t index = 0;  // in the slice
  };
  Task<Place> place_of(std::uint64_t cluster);
  std::uint64_t slice_host(std::uint64_t cluster) const;
  std::uint64_t slice_counts() const;  // clusters that one slice counts
  std::uint64_t count_at(const Place& place) const;
  void set_count(const Place& place, std::uint64_t count);
  bool has_block(std::uint64_t cluster) const;

  Task<std::optional<HostRun>> find(std::uint64_t wanted, Fit fit);
  Task<std::optional<HostRun>> take_in_slice(std::uint64_t& cluster, std::uint64_t wanted);
  Task<std::optional<HostRun>> take_all(std::uint64_t& cluster, std::uint64_t wanted);
  Task<HostRun> allocate_anywhere(std::uint64_t wanted, Fit fit);
  Task<HostRun> append(std::uint64_t wanted, Fit fit);
  Task<> prepare_blocks(std::uint64_t start, std::uint64_t count);  // clusters
  HostRun taken(std::uint64_t cluster, std::uint64_t clusters);
  Result<> check_free(std::uint64_t cluster);
  std::uint64_t limit() const;  // clusters that the file can have
  Task<> change_one(std::uint64_t cluster, int step);

  graph::Edge& file_;
  const Geometry geometry_;
  Health& health_;
  MetadataMap& metadata_;
  TableCache blocks_;
  std::vector<std::uint64_t> table_;
  std::uint64_t table_offset_ = 0;
  std::uint64_t table_clusters_ = 0;
  std::uint64_t free_from_ = 1;   // clusters before it are used
  std::uint64_t fresh_from_ = 0;  // clusters from it on were never handed out, and are zero
  bool grows_ = false;

  std::set<std::uint64_t> unpublished_;  // indices of blocks that the table on the medium lacks
  std::set<std::uint64_t> publishing_;   // those whose blocks write() has written
  bool moved_ = false;                   // the header on the medium tells of another table
  bool moving_ = false;                  // frozen with what follows
  std::vector<std::uint64_t> frozen_table_;
  Table frozen_place_;
  std::vector<Range> left_behind_;

  bool appending_ = false;
  WaitQueue appended_;
};

}  // namespace formats::qcow2
