#include "formats/qcow2/stored_refcounts.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "formats/qcow2/layout.h"
#include "formats/qcow2/refcount_block.h"

namespace formats::qcow2 {
namespace {

constexpr std::uint64_t kept_bytes = 4 * MiB;

}  // namespace

Task<> StoredRefcounts::load() {
  blocks_.clear();
  // what lies behind the end of the file is zero, and has no entries
  const std::uint64_t start = header_.refcount_table_offset;
  const std::uint64_t size = file_.size();
  const std::uint64_t claimed = std::uint64_t{header_.refcount_table_clusters}
                                << header_.geometry.cluster_bits;
  const std::uint64_t there = std::min(claimed, size > start ? align_up(size - start, 8) : 0);
  std::vector<std::byte> bytes(there);
  CO_CHECK(co_await read_padded(file_, start, bytes));
  table_.clear();
  for (ByteReader reader(bytes); const auto entry = reader.take<Be<std::uint64_t>>();) {
    table_.push_back(*entry);
  }
  co_return ok;
}

std::uint64_t StoredRefcounts::block_offset(std::uint64_t cluster) const {
  const std::uint64_t index = cluster / per_block();
  return index < table_.size() ? table_[index] & ~refcount_table_reserved_mask : 0;
}

Task<StoredRefcounts::Block*> StoredRefcounts::block(std::uint64_t index) {
  const auto found = blocks_.find(index);
  if (found != blocks_.end()) co_return &found->second;
  if (blocks_.size() * header_.cluster_size() >= kept_bytes) {
    CO_CHECK(co_await write());
    blocks_.clear();
  }
  Block loaded;
  loaded.bytes.resize(header_.cluster_size());
  CO_CHECK(
      co_await read_padded(file_, table_[index] & ~refcount_table_reserved_mask, loaded.bytes));
  co_return &blocks_.emplace(index, std::move(loaded)).first->second;
}

Task<std::uint64_t> StoredRefcounts::get(std::uint64_t cluster) {
  if (block_offset(cluster) == 0) co_return std::uint64_t{0};
  CO_TRY(Block * where, co_await block(cluster / per_block()));
  co_return get_refcount(where->bytes, header_.geometry.refcount_order, cluster % per_block());
}

Task<> StoredRefcounts::set(std::uint64_t cluster, std::uint64_t count) {
  assert(block_offset(cluster) != 0 && is_readable(cluster));
  CO_TRY(Block * where, co_await block(cluster / per_block()));
  set_refcount(where->bytes, header_.geometry.refcount_order, cluster % per_block(), count);
  where->is_dirty = true;
  co_return ok;
}

Task<> StoredRefcounts::write() {
  for (auto& [index, block] : blocks_) {
    if (!block.is_dirty) continue;
    CO_CHECK(
        co_await write_bytes(file_, table_[index] & ~refcount_table_reserved_mask, block.bytes));
    block.is_dirty = false;
  }
  co_return ok;
}

}  // namespace formats::qcow2
