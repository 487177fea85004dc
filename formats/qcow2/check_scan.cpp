#include "formats/qcow2/check_scan.h"

#include <algorithm>
#include <cstring>

#include "formats/qcow2/layout.h"

namespace formats::qcow2 {
namespace {

constexpr std::uint64_t piece_bytes = 64 * KiB;  // of an L1 or a bitmap's table, at a time
constexpr std::uint64_t tables_between_yields = 64;
constexpr std::uint64_t allocated_mask = 0xffff'ffff;  // of the bits of subclusters

std::uint64_t number_at(std::span<const std::byte> bytes, std::uint64_t at) {
  Be<std::uint64_t> stored;
  std::memcpy(&stored, bytes.data() + at, sizeof(stored));
  return stored;
}

}  // namespace

ClusterKind cluster_kind(std::uint64_t entry, const Header& header) {
  if ((entry & compressed_bit) != 0) return ClusterKind::compressed;
  const bool has_offset = (entry & offset_mask) != 0;
  if ((entry & zero_bit) != 0 && !header.geometry.extended_l2) {
    return has_offset ? ClusterKind::zero_allocated : ClusterKind::zero;
  }
  // in a data file, the first cluster lies at 0
  if (has_offset || (header.has_data_file() && (entry & copied_bit) != 0)) {
    return ClusterKind::normal;
  }
  return ClusterKind::unallocated;
}

Scan::Scan(Medium& file, const Header& header, const CheckOptions& options)
    : stored(file, header),
      file_(file),
      header_(header),
      geometry_(header.geometry),
      options_(options) {}

bool Scan::add_reference(std::uint64_t offset, std::uint64_t bytes) {
  if (bytes == 0) return true;
  // the last cluster may be there in part
  const std::uint64_t end_max = file_.size() + geometry_.cluster_size() - 1;
  if (offset > end_max || bytes > end_max - offset) {
    corrupt("ERROR: {} bytes at {:#x} are referred to, but the file ends at {:#x}", bytes, offset,
            file_.size());
    return false;
  }
  const std::uint64_t last = (offset + bytes - 1) >> geometry_.cluster_bits;
  for (std::uint64_t cluster = offset >> geometry_.cluster_bits; cluster <= last; ++cluster) {
    if (counts.get(cluster) >= geometry_.refcount_max()) {
      corrupt("ERROR: cluster {} has more references than {} bits can count", cluster,
              geometry_.refcount_bits());
    }
    counts.add(cluster);
  }
  end_cluster_ = std::max(end_cluster_, last + 1);
  return true;
}

bool Scan::hits_tables(Range range) const {
  const auto hits = [&](std::uint64_t offset, std::uint64_t bytes) {
    return bytes > 0 && range.overlaps(Range{offset, bytes}.widened(geometry_.cluster_size()));
  };
  if (hits(0, 1) || hits(header_.l1_table_offset, std::uint64_t{header_.l1_size} * 8) ||
      hits(header_.refcount_table_offset,
           std::uint64_t{header_.refcount_table_clusters} << geometry_.cluster_bits) ||
      hits(header_.snapshots_offset, snapshots.bytes)) {
    return true;
  }
  for (const Snapshot& each : snapshots.snapshots) {
    if (each.l1_table_offset <= host_offset_max &&
        hits(each.l1_table_offset, std::uint64_t{each.l1_size} * 8)) {
      return true;
    }
  }
  for (std::uint64_t at = geometry_.cluster_start(range.offset); at < range.end();
       at += geometry_.cluster_size()) {
    if (block_clusters_.contains(at >> geometry_.cluster_bits)) return true;
  }
  return false;
}

Task<> Scan::read_tables() {
  end_cluster_ = geometry_.clusters(file_.size());
  const ExtraData extra = options_.repair == Repair::all ? ExtraData::drop : ExtraData::refuse;
  Result<SnapshotTable> table = co_await read_snapshots(file_, header_, extra);
  if (!table) {
    ++report.check_errors;
    co_return std::unexpected(std::move(table).error());
  }
  snapshots = *std::move(table);
  for (std::uint32_t i = 0; i < snapshots.incomplete; ++i) {
    corrupt("ERROR: a snapshot table entry lacks the size of the disk");
  }
  for (std::uint32_t i = 0; i < snapshots.cut; ++i) {
    corrupt("ERROR: a snapshot table entry has more than {} bytes of extra data",
            snapshot_extra_bytes_max);
  }
  CO_CHECK(co_await stored.load());
  for (const std::uint64_t entry : stored.table()) {
    const std::uint64_t offset = entry & ~refcount_table_reserved_mask;
    if (offset != 0) block_clusters_.insert(offset >> geometry_.cluster_bits);
  }
  total_ = 2 * std::uint64_t{header_.l1_size};
  for (const Snapshot& each : snapshots.snapshots) total_ += each.l1_size;
  co_return ok;
}

Task<> Scan::count(Fix fix) {
  fix_ = fix;
  CO_CHECK(co_await read_tables());
  report.total_clusters = geometry_.clusters(align_down(header_.size, 512));
  add_reference(0, geometry_.cluster_size());
  CO_CHECK(co_await count_l1(header_.l1_table_offset, header_.l1_size, Kind::active));
  CO_CHECK(co_await count_snapshots());
  is_table_counted =
      add_reference(header_.refcount_table_offset,
                    std::uint64_t{header_.refcount_table_clusters} << geometry_.cluster_bits);
  if (header_.luks) add_reference(header_.luks->offset, header_.luks->length);
  CO_CHECK(co_await count_bitmaps());
  count_refcount_blocks();
  co_return ok;
}

Task<> Scan::advance() {
  ++done_;
  if (done_ % tables_between_yields != 0) co_return ok;
  if (options_.progress) options_.progress(std::min(done_, total_), total_);
  co_await yield();
  co_return ok;
}

Task<> Scan::count_l1(std::uint64_t offset, std::uint64_t entries, Kind kind) {
  if (entries == 0) co_return ok;
  if (!add_reference(offset, entries * 8) && offset > host_offset_max) {
    ++report.check_errors;
    co_return failure(Errc::corrupt, fmt::format("qcow2: an L1 table at {:#x} can't be", offset));
  }
  std::vector<std::byte> piece;
  for (std::uint64_t at = 0; at < entries * 8; at += piece.size()) {
    piece.resize(std::min(piece_bytes, entries * 8 - at));
    CO_CHECK(co_await read_padded(file_, offset + at, piece));
    for (std::uint64_t i = 0; i < piece.size(); i += 8) {
      CO_CHECK(co_await advance());
      const std::uint64_t entry = number_at(piece, i);
      if (entry == 0) continue;
      if ((entry & l1_reserved_mask) != 0) {
        corrupt("ERROR: L1 entry {} is {:#x}, with reserved bits", (at + i) / 8, entry);
      }
      const std::uint64_t table = entry & offset_mask;
      add_reference(table, geometry_.cluster_size());
      if (!geometry_.is_cluster_aligned(table)) {
        corrupt("ERROR: L1 entry {} leads to {:#x}, which is no multiple of the cluster size",
                (at + i) / 8, table);
      }
      CO_CHECK(co_await count_l2(table, kind));
    }
  }
  co_return ok;
}

void Scan::count_compressed(std::uint64_t entry, std::uint64_t bitmap, Kind kind) {
  if ((entry & copied_bit) != 0) {
    corrupt("ERROR: compressed cluster {:#x} is flagged as copied", entry);
  }
  if (header_.has_data_file()) {
    corrupt("ERROR: compressed cluster {:#x} in an image with a data file", entry);
    return;
  }
  if (bitmap != 0) {
    corrupt("ERROR: compressed cluster {:#x} has parts", entry);
    return;
  }
  const unsigned bits = geometry_.compressed_offset_bits();
  const std::uint64_t offset = entry & ((std::uint64_t{1} << bits) - 1);
  const std::uint64_t sectors =
      1 + ((entry & ~(copied_bit | compressed_bit)) >> bits);  // started ones, of 512 bytes
  add_reference(offset, sectors * 512 - (offset & 511));
  if (kind == Kind::active) {
    ++report.allocated_clusters;
    ++report.compressed_clusters;
    ++report.fragmented_clusters;  // they share sectors, so none goes without reading twice
  }
}

Task<bool> Scan::count_standard(std::span<std::byte> entry, std::uint64_t at, Kind kind) {
  const std::uint64_t value = number_at(entry, 0);
  const std::uint64_t bitmap = geometry_.extended_l2 ? number_at(entry, 8) : 0;
  const std::uint64_t offset = value & offset_mask;
  if (((bitmap >> 32) & bitmap) != 0) {
    corrupt("ERROR: parts of the cluster at {:#x} are both allocated and zero", offset);
  }
  if (!geometry_.is_cluster_aligned(offset)) {
    const bool has_data =
        geometry_.extended_l2 ? (bitmap & allocated_mask) != 0 : (value & zero_bit) == 0;
    if (has_data || fix_ == Fix::nothing) {
      corrupt("ERROR: {} cluster at {:#x}, which is no multiple of the cluster size",
              has_data ? "data" : "preallocated", offset);
    } else if (hits_tables({at, entry.size()})) {
      corrupt("ERROR: the L2 entry at {:#x} lies in another table and is not repaired", at);
      ++report.check_errors;
      co_return failure(Errc::not_supported, "");  // leave this table alone
    } else {
      const Be<std::uint64_t> plain = geometry_.extended_l2 ? 0 : zero_bit;
      const Be<std::uint64_t> zeroes = (bitmap | bitmap << 32) & ~allocated_mask;
      std::memcpy(entry.data(), &plain, sizeof(plain));
      if (geometry_.extended_l2) std::memcpy(entry.data() + 8, &zeroes, sizeof(zeroes));
      CO_CHECK(co_await write_bytes(file_, at, entry));
      CO_CHECK(co_await file_.flush());
      ++report.corruptions_fixed;
      say("Repaired: a preallocated cluster at {:#x}, which is no multiple of the cluster size",
          offset);
      co_return true;
    }
  }
  if (kind == Kind::active) {
    ++report.allocated_clusters;
    if (next_data_ != 0 && offset != next_data_) ++report.fragmented_clusters;
    next_data_ = offset + geometry_.cluster_size();
  }
  if (!header_.has_data_file()) add_reference(offset, geometry_.cluster_size());
  co_return false;
}

Task<> Scan::count_l2(std::uint64_t offset, Kind kind) {
  std::vector<std::byte> table(geometry_.cluster_size());
  CO_CHECK(co_await read_padded(file_, offset, table));
  next_data_ = 0;
  const std::uint64_t entry_bytes = geometry_.l2_entry_bytes();
  for (std::uint64_t at = 0; at < table.size(); at += entry_bytes) {
    const std::uint64_t entry = number_at(table, at);
    const std::uint64_t bitmap = geometry_.extended_l2 ? number_at(table, at + 8) : 0;
    if (entry == 0 && bitmap == 0) continue;
    const ClusterKind cluster = cluster_kind(entry, header_);
    if (cluster != ClusterKind::compressed && (entry & l2_reserved_mask) != 0) {
      corrupt("ERROR: an L2 entry is {:#x}, with reserved bits", entry);
    }
    if (cluster == ClusterKind::compressed) {
      count_compressed(entry, bitmap, kind);
    } else if (cluster == ClusterKind::unallocated) {
      if ((bitmap & allocated_mask) != 0) {
        corrupt("ERROR: a cluster that is not allocated has allocated parts, {:#x}", bitmap);
      }
    } else if (cluster != ClusterKind::zero) {
      const auto done =
          co_await count_standard(std::span(table).subspan(at, entry_bytes), offset + at, kind);
      if (!done && done.error().code == Errc::not_supported) co_return ok;
      if (!done) co_return std::unexpected(done.error());
    }
  }
  co_return ok;
}

Task<> Scan::count_snapshots() {
  if (header_.has_data_file() && header_.snapshot_count > 0) {
    corrupt("ERROR: {} snapshots in an image with a data file", header_.snapshot_count);
  }
  for (const Snapshot& each : snapshots.snapshots) {
    if (!geometry_.is_cluster_aligned(each.l1_table_offset)) {
      corrupt(
          "ERROR: snapshot '{}' has its L1 table at {:#x}, which is no multiple of the cluster "
          "size",
          each.id, each.l1_table_offset);
    } else if (std::uint64_t{each.l1_size} * 8 > l1_bytes_max) {
      corrupt("ERROR: snapshot '{}' has an L1 table of {} entries, which is too large", each.id,
              each.l1_size);
    } else {
      CO_CHECK(co_await count_l1(each.l1_table_offset, each.l1_size, Kind::snapshot));
    }
  }
  is_snapshot_table_counted = add_reference(header_.snapshots_offset, snapshots.bytes);
  co_return ok;
}

Task<> Scan::count_bitmaps() {
  if (!has_bitmaps(header_)) co_return ok;
  add_reference(header_.bitmaps->directory_offset, header_.bitmaps->directory_size);
  Result<std::vector<Bitmap>> bitmaps = co_await read_bitmaps(file_, header_);
  if (bitmaps && !std::ranges::all_of(*bitmaps, &Bitmap::is_usable)) {
    // what such a one refers to is known to nobody here
    bitmaps = failure(Errc::not_supported, "qcow2: there is a bitmap of a kind not known here");
  }
  if (!bitmaps) {
    ++report.corruptions;
    co_return std::unexpected(bitmaps.error());
  }
  for (const Bitmap& each : *bitmaps) CO_CHECK(co_await count_bitmap(each));
  co_return ok;
}

Task<> Scan::count_bitmap(const Bitmap& bitmap) {
  const std::uint64_t bytes = std::uint64_t{bitmap.table_size} * 8;
  if (!add_reference(bitmap.table_offset, bytes)) co_return ok;
  std::vector<std::byte> piece;
  for (std::uint64_t at = 0; at < bytes; at += piece.size()) {
    piece.resize(std::min(piece_bytes, bytes - at));
    CO_CHECK(co_await read_padded(file_, bitmap.table_offset + at, piece));
    for (std::uint64_t i = 0; i < piece.size(); i += 8) {
      const BitmapTableEntry entry = parse_bitmap_table_entry(number_at(piece, i), geometry_);
      if (entry.kind == BitmapTableEntry::Kind::stored) {
        add_reference(entry.offset, geometry_.cluster_size());
      } else if (entry.kind == BitmapTableEntry::Kind::wrong) {
        corrupt("ERROR: bitmap '{}': entry {} of its table is {:#x}", bitmap.name, (at + i) / 8,
                number_at(piece, i));
      }
    }
  }
  co_return ok;
}

void Scan::count_refcount_blocks() {
  for (std::uint64_t index = 0; index < stored.table().size(); ++index) {
    const std::uint64_t entry = stored.table()[index];
    const std::uint64_t offset = entry & ~refcount_table_reserved_mask;
    if (entry == 0) continue;
    if (offset != entry) {
      corrupt("ERROR: refcount table entry {} is {:#x}, with reserved bits", index, entry);
      needs_rebuild = true;
    } else if (!geometry_.is_cluster_aligned(offset)) {
      corrupt("ERROR: refcount block {} is at {:#x}, which is no multiple of the cluster size",
              index, offset);
      needs_rebuild = true;
    } else if ((offset >> geometry_.cluster_bits) >= end_cluster_) {
      corrupt("ERROR: refcount block {} is at {:#x}, behind the end of the file", index, offset);
      needs_rebuild = true;
    } else {
      if (add_reference(offset, geometry_.cluster_size())) refcount_blocks.push_back(offset);
      if (counts.get(offset >> geometry_.cluster_bits) == 1) continue;
      corrupt("ERROR: refcount block {} is at {:#x}, which is used for something else, too", index,
              offset);
      needs_rebuild = true;
    }
  }
}

void Scan::compare_one(std::uint64_t cluster, std::uint64_t kept) {
  const std::uint64_t counted = wanted(cluster);
  if (kept > 0 || counted > 0) highest_ = std::max(highest_, cluster);
  if (kept == counted) return;
  if (kept < counted) {
    corrupt("ERROR cluster {} refcount={} reference={}", cluster, kept, counted);
    if (kept == 0) has_uncounted = true;
    if (stored.block_offset(cluster) == 0) needs_rebuild = true;
  } else {
    ++report.leaks;
    say("Leaked cluster {} refcount={} reference={}", cluster, kept, counted);
  }
}

Task<> Scan::compare() {
  const std::uint64_t per_block = geometry_.refcount_block_entries();
  const std::uint64_t blocks =
      std::min<std::uint64_t>(stored.table().size(), (end_cluster_ + per_block - 1) / per_block);
  // clusters that no block counts
  const auto compare_uncounted = [&](std::uint64_t first, std::uint64_t end) {
    for (auto at = counts.next(first); at && *at < end; at = counts.next(*at + 1)) {
      compare_one(*at, 0);
    }
  };
  for (std::uint64_t index = 0; index < blocks; ++index) {
    const std::uint64_t first = index * per_block;
    const std::uint64_t end = std::min(first + per_block, end_cluster_);
    if (stored.block_offset(first) == 0) {
      compare_uncounted(first, end);
    } else if (!stored.is_readable(first)) {
      report.check_errors += end - first;
      say("ERROR: the refcounts of clusters {} to {} can't be read", first, end - 1);
    } else {
      for (std::uint64_t cluster = first; cluster < end; ++cluster) {
        CO_TRY(const std::uint64_t kept, co_await stored.get(cluster));
        compare_one(cluster, kept);
      }
    }
  }
  compare_uncounted(blocks * per_block, end_cluster_);
  report.image_end = (highest_ + 1) << geometry_.cluster_bits;
  co_return ok;
}

Task<> Scan::compare_l2_flags(std::uint64_t offset) {
  std::vector<std::byte> table(geometry_.cluster_size());
  CO_CHECK(co_await read_padded(file_, offset, table));
  for (std::uint64_t at = 0; at < table.size(); at += geometry_.l2_entry_bytes()) {
    const std::uint64_t entry = number_at(table, at);
    const ClusterKind kind = cluster_kind(entry, header_);
    if (kind != ClusterKind::normal && kind != ClusterKind::zero_allocated) continue;
    std::uint64_t count = 1;
    if (!header_.has_data_file()) {
      const std::uint64_t cluster = (entry & offset_mask) >> geometry_.cluster_bits;
      if (!stored.is_readable(cluster)) continue;
      CO_TRY(count, co_await stored.get(cluster));
    }
    if ((count == 1) == ((entry & copied_bit) != 0)) continue;
    corrupt("ERROR OFLAG_COPIED data cluster: l2_entry={:#x} refcount={}", entry, count);
  }
  co_return ok;
}

Task<> Scan::compare_flags() {
  std::vector<std::byte> piece;
  const std::uint64_t bytes = std::uint64_t{header_.l1_size} * 8;
  for (std::uint64_t at = 0; at < bytes; at += piece.size()) {
    piece.resize(std::min(piece_bytes, bytes - at));
    CO_CHECK(co_await read_padded(file_, header_.l1_table_offset + at, piece));
    for (std::uint64_t i = 0; i < piece.size(); i += 8) {
      CO_CHECK(co_await advance());
      const std::uint64_t entry = number_at(piece, i);
      const std::uint64_t table = entry & offset_mask;
      if (table == 0 || !stored.is_readable(table >> geometry_.cluster_bits)) continue;
      CO_TRY(const std::uint64_t count, co_await stored.get(table >> geometry_.cluster_bits));
      if ((count == 1) != ((entry & copied_bit) != 0)) {
        corrupt("ERROR OFLAG_COPIED L2 cluster: l1_index={} l1_entry={:#x} refcount={}",
                (at + i) / 8, entry, count);
      }
      CO_CHECK(co_await compare_l2_flags(table));
    }
  }
  co_return ok;
}

}  // namespace formats::qcow2
