#include "formats/qcow2/check_repair.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "formats/qcow2/layout.h"
#include "formats/qcow2/refcount_block.h"

namespace formats::qcow2 {
namespace {

constexpr std::uint64_t piece_bytes = 64 * KiB;  // of an L1, at a time

std::uint64_t number_at(std::span<const std::byte> bytes, std::uint64_t at) {
  Be<std::uint64_t> stored;
  std::memcpy(&stored, bytes.data() + at, sizeof(stored));
  return stored;
}

void put_number(std::span<std::byte> bytes, std::uint64_t at, std::uint64_t number) {
  const Be<std::uint64_t> stored = number;
  std::memcpy(bytes.data() + at, &stored, sizeof(stored));
}

// Neighbours in the header, so that one write changes both at once.
struct RefcountTablePlace {
  Be<std::uint64_t> offset;
  Be<std::uint32_t> clusters;
};
static_assert(offsetof(RawHeader, refcount_table_clusters) ==
              offsetof(RawHeader, refcount_table_offset) + sizeof(std::uint64_t));
struct SnapshotTablePlace {
  Be<std::uint32_t> count;
  Be<std::uint64_t> offset;
};
static_assert(offsetof(RawHeader, snapshots_offset) ==
              offsetof(RawHeader, nb_snapshots) + sizeof(std::uint32_t));

}  // namespace

void RepairShop::count(std::uint64_t first, std::uint64_t n) {
  for (std::uint64_t cluster = first; cluster < first + n; ++cluster) scan_.counts.add(cluster);
}

void RepairShop::discount(std::uint64_t offset, std::uint64_t length) {
  if (length == 0) return;
  const std::uint64_t last = (offset + length - 1) >> geometry_.cluster_bits;
  for (std::uint64_t cluster = offset >> geometry_.cluster_bits; cluster <= last; ++cluster) {
    scan_.counts.remove(cluster);
  }
}

Result<> RepairShop::check_room(std::uint64_t end_cluster) const {
  if (file_.can_grow() || bytes(end_cluster) <= file_.size()) return ok;
  return failure(Errc::no_space,
                 fmt::format("qcow2: the repair needs {} bytes, and the image can't grow beyond {}",
                             bytes(end_cluster), file_.size()));
}

Task<> RepairShop::repair_all() {
  CO_TRY(const std::uint64_t snapshots_at, co_await write_snapshots());
  CO_CHECK(co_await walk_flags(Flags::clear));
  CO_CHECK(co_await file_.flush());
  if (scan_.needs_rebuild) {
    CO_CHECK(co_await rebuild());
  } else {
    CO_CHECK(co_await store_counts(Which::all));
  }
  CO_CHECK(co_await walk_flags(Flags::set));
  CO_CHECK(co_await file_.flush());
  if (snapshots_at == 0) co_return ok;
  co_return co_await switch_snapshots(snapshots_at);
}

Task<> RepairShop::repair_flags() {
  CO_CHECK(co_await walk_flags(Flags::clear));
  CO_CHECK(co_await walk_flags(Flags::set));
  co_return co_await file_.flush();
}

Task<> RepairShop::store_counts(Which which) {
  StoredRefcounts& stored = scan_.stored;
  const std::uint64_t per_block = geometry_.refcount_block_entries();
  const std::uint64_t end = scan_.end_cluster();
  for (std::uint64_t index = 0; index < stored.table().size() && index * per_block < end; ++index) {
    const std::uint64_t first = index * per_block;
    if (stored.block_offset(first) == 0 || !stored.is_readable(first)) continue;
    for (std::uint64_t cluster = first; cluster < std::min(first + per_block, end); ++cluster) {
      CO_TRY(const std::uint64_t kept, co_await stored.get(cluster));
      const std::uint64_t counted = scan_.wanted(cluster);
      if (kept == counted || (which == Which::leaks && kept < counted)) continue;
      CO_CHECK(co_await stored.set(cluster, counted));
      scan_.say("Repairing cluster {} refcount={} reference={}", cluster, kept, counted);
    }
  }
  CO_CHECK(co_await stored.write());
  co_return co_await file_.flush();
}

// Decides by what the count will be, which is what it is where nothing was counted.
Task<bool> RepairShop::is_wrong(std::uint64_t entry, Flags what) {
  const std::uint64_t cluster = (entry & offset_mask) >> geometry_.cluster_bits;
  std::uint64_t count = scan_.wanted(cluster);
  if (cluster >= scan_.end_cluster() && !scan_.needs_rebuild) {
    if (!scan_.stored.is_readable(cluster)) co_return false;
    CO_TRY(count, co_await scan_.stored.get(cluster));
  }
  const bool is_set = (entry & copied_bit) != 0;
  co_return is_set != (count == 1) && is_set == (what == Flags::clear);
}

Task<> RepairShop::walk_flags(Flags what) {
  std::vector<std::byte> piece;
  const std::uint64_t end = std::uint64_t{header_.l1_size} * 8;
  for (std::uint64_t at = 0; at < end; at += piece.size()) {
    piece.resize(std::min(piece_bytes, end - at));
    const std::uint64_t piece_at = header_.l1_table_offset + at;
    CO_CHECK(co_await read_padded(file_, piece_at, piece));
    for (std::uint64_t i = 0; i < piece.size(); i += 8) {
      const std::uint64_t entry = number_at(piece, i);
      const std::uint64_t table = entry & offset_mask;
      if (table == 0) continue;
      CO_TRY(const bool changes, co_await is_wrong(entry, what));
      if (changes) {
        put_number(piece, i, entry ^ copied_bit);
        CO_CHECK(co_await write_bytes(file_, piece_at + i, std::span(piece).subspan(i, 8)));
      }
      CO_CHECK(co_await walk_l2_flags(table, what));
    }
    co_await yield();
  }
  co_return ok;
}

Task<> RepairShop::walk_l2_flags(std::uint64_t offset, Flags what) {
  std::vector<std::byte> table(geometry_.cluster_size());
  CO_CHECK(co_await read_padded(file_, offset, table));
  bool is_changed = false;
  for (std::uint64_t at = 0; at < table.size(); at += geometry_.l2_entry_bytes()) {
    const std::uint64_t entry = number_at(table, at);
    const ClusterKind kind = cluster_kind(entry, header_);
    if (kind != ClusterKind::normal && kind != ClusterKind::zero_allocated) continue;
    bool changes = (entry & copied_bit) == 0 && what == Flags::set;
    if (!header_.has_data_file()) {
      CO_TRY(changes, co_await is_wrong(entry, what));
    }
    if (!changes) continue;
    put_number(table, at, entry ^ copied_bit);
    is_changed = true;
  }
  // a table that lies in another one stays as it is: the next check tells of it
  if (!is_changed || scan_.hits_tables({offset, table.size()})) co_return ok;
  co_return co_await write_bytes(file_, offset, table);
}

Task<std::uint64_t> RepairShop::write_snapshots() {
  const SnapshotTable& old = scan_.snapshots;
  if (old.incomplete == 0 && old.cut == 0) co_return std::uint64_t{0};
  std::vector<Snapshot> snapshots = old.snapshots;
  for (Snapshot& each : snapshots) {
    // what an entry does not say has always meant the size of the disk
    if (!each.disk_size) each.disk_size = header_.size;
    const std::uint64_t room = snapshot_extra_bytes_max - sizeof(RawSnapshotExtra);
    each.unknown_extra.resize(std::min<std::uint64_t>(each.unknown_extra.size(), room));
  }
  CO_TRY(const std::vector<std::byte> table, format_snapshots(snapshots));
  const std::uint64_t n = geometry_.clusters(table.size());
  const std::uint64_t at = scan_.counts.find_free(1, n);
  CO_CHECK(check_room(at + n));
  CO_CHECK(co_await write_bytes(file_, bytes(at), table));
  CO_CHECK(co_await file_.flush());
  scan_.add_reference(bytes(at), table.size());
  for (std::uint64_t cluster = at; cluster < at + n; ++cluster) {
    if (scan_.stored.block_offset(cluster) == 0) scan_.needs_rebuild = true;
  }
  scan_.snapshots.snapshots = std::move(snapshots);
  co_return bytes(at);
}

Task<> RepairShop::switch_snapshots(std::uint64_t offset) {
  SnapshotTablePlace place;
  place.count = header_.snapshot_count;
  place.offset = offset;
  CO_CHECK(co_await write_bytes(file_, offsetof(RawHeader, nb_snapshots), bytes_of(place)));
  CO_CHECK(co_await file_.flush());
  scan_.say("Repaired: the snapshot table is complete, at {:#x}", offset);
  if (scan_.is_snapshot_table_counted) discount(header_.snapshots_offset, scan_.snapshots.bytes);
  header_.snapshots_offset = offset;
  co_return co_await store_counts(Which::all);
}

// The block that counts `cluster` gets a place, and so do those that count the places.
void RepairShop::place_block_for(std::uint64_t cluster) {
  const std::uint64_t per_block = geometry_.refcount_block_entries();
  while (!blocks_.contains(cluster / per_block)) {
    const std::uint64_t place = scan_.counts.find_free(free_from_, 1);
    free_from_ = place + 1;
    count(place, 1);
    blocks_[cluster / per_block] = place;
    cluster = place;
  }
}

Result<> RepairShop::place_blocks() {
  const std::uint64_t per_block = geometry_.refcount_block_entries();
  for (auto at = scan_.counts.next(0); at;
       at = scan_.counts.next((*at / per_block + 1) * per_block)) {
    place_block_for(*at);
  }
  return place_table();
}

Result<> RepairShop::place_table() {
  for (;;) {
    const std::uint64_t wanted = geometry_.clusters((blocks_.rbegin()->first + 1) * 8);
    if (wanted == table_clusters_) break;
    if (bytes(wanted) > refcount_table_bytes_max) {
      return failure(Errc::no_space, "qcow2: the file is too long for its clusters to be counted");
    }
    discount(bytes(table_at_), bytes(table_clusters_));
    table_clusters_ = wanted;
    table_at_ = scan_.counts.find_free(1, wanted);
    count(table_at_, wanted);
    for (std::uint64_t i = 0; i < wanted; ++i) place_block_for(table_at_ + i);
  }
  std::uint64_t end = table_at_ + table_clusters_;
  for (const auto& [index, cluster] : blocks_) end = std::max(end, cluster + 1);
  return check_room(end);
}

void RepairShop::forget_old_structure() {
  if (scan_.is_table_counted) {
    discount(header_.refcount_table_offset, bytes(header_.refcount_table_clusters));
  }
  for (const std::uint64_t offset : scan_.refcount_blocks) {
    discount(offset, geometry_.cluster_size());
  }
}

Task<> RepairShop::write_structure() {
  const std::uint64_t per_block = geometry_.refcount_block_entries();
  std::vector<std::byte> table(bytes(table_clusters_));
  std::vector<std::byte> block(geometry_.cluster_size());
  for (const auto& [index, cluster] : blocks_) {
    const std::uint64_t first = index * per_block;
    std::ranges::fill(block, std::byte{0});
    for (auto at = scan_.counts.next(first); at && *at < first + per_block;
         at = scan_.counts.next(*at + 1)) {
      set_refcount(block, geometry_.refcount_order, *at - first, scan_.wanted(*at));
    }
    CO_CHECK(co_await write_bytes(file_, bytes(cluster), block));
    put_number(table, index * 8, bytes(cluster));
  }
  CO_CHECK(co_await write_bytes(file_, bytes(table_at_), table));
  co_return co_await file_.flush();
}

// The new structure avoids whatever is in use, the old structure included: until the header leads
// to the new one, the image is what it was.
Task<> RepairShop::rebuild() {
  scan_.say("Rebuilding refcount structure");
  CO_CHECK(place_blocks());
  forget_old_structure();
  CO_CHECK(co_await write_structure());
  RefcountTablePlace place;
  place.offset = bytes(table_at_);
  place.clusters = static_cast<std::uint32_t>(table_clusters_);
  CO_CHECK(
      co_await write_bytes(file_, offsetof(RawHeader, refcount_table_offset), bytes_of(place)));
  CO_CHECK(co_await file_.flush());
  header_.refcount_table_offset = bytes(table_at_);
  header_.refcount_table_clusters = static_cast<std::uint32_t>(table_clusters_);
  co_return co_await scan_.stored.load();
}

Task<> mark_clean(Medium& file, Header& header) {
  constexpr std::uint64_t marks = incompatible::dirty | incompatible::corrupt;
  if (header.version < 3 || (header.incompatible_features & marks) == 0) co_return ok;
  CO_CHECK(co_await file.flush());
  header.incompatible_features &= ~marks;
  const Be<std::uint64_t> features = header.incompatible_features;
  CO_CHECK(co_await write_bytes(file, sizeof(RawHeader), bytes_of(features)));
  co_return co_await file.flush();
}

}  // namespace formats::qcow2
