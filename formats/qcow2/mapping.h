// mapping.h - the active L1 and L2 tables, or those of a snapshot: where guest clusters live.
// Changes are memory until the flush (flush.cpp) writes them, after what they refer to. Rules L-1,
// L-7, L-8 of docs/qcow2.md. Spec: qcow2.rst, "Cluster mapping".
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "formats/qcow2/health.h"
#include "formats/qcow2/l2_entry.h"
#include "formats/qcow2/table_cache.h"

namespace formats::qcow2 {

// An L1 table in memory, host byte order.
struct L1Table {
  std::vector<std::uint64_t> entries;
  std::uint64_t offset = 0;  // in the file, in bytes
};

// Reads `count` entries. Errors: corrupt when the table lies outside the file, io_error.
Task<L1Table> read_l1(graph::Edge& file, Health& health, std::uint64_t offset, std::uint64_t count);

class Mapping {
 public:
  // Lifetime: all that is passed outlives it. Several mappings share one cache.
  Mapping(TableCache& cache, Health& health, const EntryRules& rules, L1Table l1 = {})
      : cache_(cache), health_(health), rules_(rules), l1_(std::move(l1)) {}

  void set_table(L1Table table) { l1_ = std::move(table); }
  const L1Table& table() const { return l1_; }
  std::uint64_t entries() const { return l1_.entries.size(); }
  std::uint64_t entry(std::uint64_t index) const { return l1_.entries[index]; }
  // Must be written from now on.
  void set_entry(std::uint64_t index, std::uint64_t entry);

  // The L2 table that describes `guest`: its entry of L1, checked; 0 when there is none.
  // Errors: corrupt.
  Result<std::uint64_t> l1_entry(std::uint64_t guest) const;

  // How `guest` and what follows it is mapped, at most `length` bytes, if that can be said without
  // waiting: nothing when a slice has to be loaded first.
  std::optional<Result<Run>> run_now(std::uint64_t guest, std::uint64_t length);
  Task<Run> run(std::uint64_t guest, std::uint64_t length);

  // The slice that describes `guest`, pinned. Errors: corrupt, io_error.
  // Requires: there is an L2 table.
  Task<TableCache::Ref> slice(std::uint64_t guest);
  // The same, if it is here.
  const TableCache::Slice* slice_now(std::uint64_t guest);
  // Guest offset behind the last byte that the slice of `guest` describes.
  std::uint64_t slice_end(std::uint64_t guest) const {
    return slice_first(guest) + slice_coverage();
  }
  // Changes the entry of `guest` in a slice that slice() returned.
  void store(TableCache::Slice& slice, std::uint64_t guest, L2Entry entry);
  L2Entry load(const TableCache::Slice& slice, std::uint64_t guest) const;

  const EntryRules& rules() const { return rules_; }
  TableCache& cache() { return cache_; }

  // The flush, with the cache's freeze: L1 entries as they are now.
  bool dirty() const { return !dirty_.empty() || !frozen_.empty(); }
  void freeze();
  Task<> write_frozen(graph::Edge& file);

 private:
  std::uint64_t slice_coverage() const;  // guest bytes that one slice describes
  std::uint64_t slice_first(std::uint64_t guest) const;
  std::uint64_t slice_host(std::uint64_t l2, std::uint64_t guest) const;
  Result<Run> run_in(const TableCache::Slice& slice, std::uint64_t guest, std::uint64_t length);
  Run hole(std::uint64_t guest, std::uint64_t length) const;

  TableCache& cache_;
  Health& health_;
  const EntryRules& rules_;
  L1Table l1_;
  std::set<std::uint64_t> dirty_;                  // indices
  std::map<std::uint64_t, std::uint64_t> frozen_;  // entries by index
};

}  // namespace formats::qcow2
