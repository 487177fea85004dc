// stored_refcounts.h - the reference counts that an image keeps, for who looks at all of them or
// changes single ones. Blocks are kept in memory as far as that is cheap.
// Spec: qcow2.rst, "Host cluster management".
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "formats/qcow2/header.h"
#include "formats/qcow2/medium.h"

namespace formats::qcow2 {

class StoredRefcounts {
 public:
  // Lifetime: both outlive it; the header's geometry does not change.
  StoredRefcounts(Medium& file, const Header& header) : file_(file), header_(header) {}

  // Reads the table, again after somebody has changed where it is. Errors: the file's.
  Task<> load();
  // Entries as they stand in the table.
  const std::vector<std::uint64_t>& table() const { return table_; }
  // Where the block with the count of `cluster` lies; 0: nowhere, then its count is 0.
  std::uint64_t block_offset(std::uint64_t cluster) const;
  bool is_readable(std::uint64_t cluster) const {
    const std::uint64_t offset = block_offset(cluster);
    return header_.geometry.is_cluster_aligned(offset) && offset >> 63 == 0;
  }
  // Requires: is_readable(). Errors: the file's.
  Task<std::uint64_t> get(std::uint64_t cluster);
  // Requires: is_readable(), and there is a block. Errors: the file's.
  Task<> set(std::uint64_t cluster, std::uint64_t count);
  // Writes what was set. Errors: the file's.
  Task<> write();

 private:
  struct Block {
    std::vector<std::byte> bytes;
    bool is_dirty = false;
  };
  std::uint64_t per_block() const { return header_.geometry.refcount_block_entries(); }
  Task<Block*> block(std::uint64_t index);

  Medium& file_;
  const Header& header_;
  std::vector<std::uint64_t> table_;
  std::unordered_map<std::uint64_t, Block> blocks_;  // by index
};

}  // namespace formats::qcow2
