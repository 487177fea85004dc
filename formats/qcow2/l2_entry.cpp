#include "formats/qcow2/l2_entry.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>

namespace formats::qcow2 {
namespace {

constexpr std::uint64_t sector = 512;

std::uint64_t load_be64(std::span<const std::byte> bytes, std::uint64_t at) {
  Be<std::uint64_t> value;
  assert(at + sizeof(value) <= bytes.size());
  std::memcpy(&value, bytes.data() + at, sizeof(value));
  return value.get();
}

void store_be64(std::span<std::byte> bytes, std::uint64_t at, std::uint64_t number) {
  const Be<std::uint64_t> value = number;
  assert(at + sizeof(value) <= bytes.size());
  std::memcpy(bytes.data() + at, &value, sizeof(value));
}

std::uint64_t low_bits(unsigned count) { return (std::uint64_t{1} << count) - 1; }

std::unexpected<std::string> wrong(L2Entry entry, std::uint64_t guest, std::string_view what) {
  return std::unexpected(
      fmt::format("L2 entry {:#x} of guest offset {:#x} {}", entry.descriptor, guest, what));
}

std::expected<Cluster, std::string> decode_compressed(L2Entry entry, const EntryRules& rules,
                                                      std::uint64_t guest) {
  const unsigned bits = rules.geometry.compressed_offset_bits();
  const std::uint64_t offset = entry.descriptor & low_bits(bits);
  if (rules.external_data)
    return wrong(entry, guest, "is compressed, beside an external data file");
  if ((entry.descriptor & copied_bit) != 0) return wrong(entry, guest, "is compressed and COPIED");
  if (offset > host_offset_max) return wrong(entry, guest, "has reserved bits set");
  if (entry.bitmap != 0) return wrong(entry, guest, "is compressed and has subclusters");
  const std::uint64_t more = (entry.descriptor & (compressed_bit - 1)) >> bits;
  Cluster cluster;
  cluster.compressed = true;
  cluster.place.offset = offset;
  cluster.place.length = (more + 1) * sector - offset % sector;
  return cluster;
}

// One subcluster's sort, so that equal sorts can go together.
struct Sort {
  RunKind kind;
  bool reserved;
  bool operator==(const Sort&) const = default;
};
Sort sort_of(const Cluster& cluster, unsigned subcluster) {
  if (cluster.compressed) return {RunKind::compressed, false};
  if ((cluster.data >> subcluster & 1) != 0) return {RunKind::data, false};
  if ((cluster.zero >> subcluster & 1) != 0) return {RunKind::zero, cluster.has_host};
  return {RunKind::below, cluster.has_host};
}

// How many subclusters from `from` on are of the sort that the first one is.
unsigned alike(const Cluster& cluster, unsigned from, unsigned subclusters) {
  if (subclusters == 1 || cluster.compressed) return subclusters - from;
  const Sort sort = sort_of(cluster, from);
  unsigned end = from + 1;
  while (end < subclusters && sort_of(cluster, end) == sort) ++end;
  return end - from;
}

}  // namespace

L2Entry load_entry(std::span<const std::byte> table, const Geometry& geometry,
                   std::uint64_t index) {
  L2Entry entry;
  const std::uint64_t at = index * geometry.l2_entry_bytes();
  entry.descriptor = load_be64(table, at);
  if (geometry.extended_l2) entry.bitmap = load_be64(table, at + 8);
  return entry;
}

void store_entry(std::span<std::byte> table, const Geometry& geometry, std::uint64_t index,
                 L2Entry entry) {
  const std::uint64_t at = index * geometry.l2_entry_bytes();
  store_be64(table, at, entry.descriptor);
  if (geometry.extended_l2) store_be64(table, at + 8, entry.bitmap);
}

std::expected<Cluster, std::string> decode(L2Entry entry, const EntryRules& rules,
                                           std::uint64_t guest) {
  if ((entry.descriptor & compressed_bit) != 0) return decode_compressed(entry, rules, guest);
  const bool zero = (entry.descriptor & zero_bit) != 0;
  if ((entry.descriptor & l2_reserved_mask) != 0)
    return wrong(entry, guest, "has reserved bits set");
  if (zero && !rules.zero_flag)
    return wrong(entry, guest, "has the zero flag in a version 2 image");
  if (zero && rules.geometry.extended_l2) {
    return wrong(entry, guest, "has the zero flag and subclusters");
  }
  Cluster cluster;
  cluster.copied = (entry.descriptor & copied_bit) != 0;
  cluster.host = entry.descriptor & offset_mask;
  // L-6: offset 0 is a place only in an external data file
  cluster.has_host = cluster.host != 0 || (cluster.copied && rules.external_data);
  if (!rules.geometry.is_cluster_aligned(cluster.host)) {
    return wrong(entry, guest,
                 fmt::format("points to {:#x}, which is not aligned to {:#x}", cluster.host,
                             rules.geometry.cluster_size()));
  }
  if (rules.external_data && cluster.has_host &&
      cluster.host != rules.geometry.cluster_start(guest)) {
    return wrong(entry, guest, "points to another offset of the external data file");
  }
  if (rules.geometry.extended_l2) {
    cluster.data = static_cast<std::uint32_t>(entry.bitmap);
    cluster.zero = static_cast<std::uint32_t>(entry.bitmap >> 32);
    if ((cluster.data & cluster.zero) != 0) {
      return wrong(entry, guest, "has subclusters that are allocated and zero at once");
    }
    if (cluster.data != 0 && !cluster.has_host) {
      return wrong(entry, guest, "has allocated subclusters and no host cluster");
    }
  } else {
    cluster.zero = zero ? 1 : 0;
    cluster.data = cluster.has_host && !zero ? 1 : 0;
  }
  return cluster;
}

L2Entry encode(const Cluster& cluster, const EntryRules& rules) {
  assert(!cluster.compressed);
  L2Entry entry;
  if (cluster.has_host) entry.descriptor = cluster.host | (cluster.copied ? copied_bit : 0);
  if (rules.geometry.extended_l2) {
    entry.bitmap = cluster.data | std::uint64_t{cluster.zero} << 32;
  } else if (cluster.zero != 0) {
    entry.descriptor |= zero_bit;
  }
  return entry;
}

std::expected<L2Entry, std::string> encode_compressed(CompressedPlace place,
                                                      const EntryRules& rules) {
  const unsigned bits = rules.geometry.compressed_offset_bits();
  if (place.offset > std::min(low_bits(bits), host_offset_max)) {
    return std::unexpected(
        fmt::format("compressed data at {:#x} lies too far behind", place.offset));
  }
  const std::uint64_t more =
      (align_up(place.offset + place.length, sector) - align_down(place.offset, sector)) / sector -
      1;
  if (more > low_bits(62 - bits)) {
    return std::unexpected(fmt::format("compressed data of {} bytes is too long", place.length));
  }
  L2Entry entry;
  entry.descriptor = compressed_bit | more << bits | place.offset;
  return entry;
}

std::expected<Run, std::string> find_run(std::span<const std::byte> slice, std::uint64_t first,
                                         std::uint64_t guest, std::uint64_t length,
                                         const EntryRules& rules) {
  const Geometry& geometry = rules.geometry;
  const std::uint64_t entries = slice.size() / geometry.l2_entry_bytes();
  std::uint64_t index = (guest - first) >> geometry.cluster_bits;
  assert(index < entries);
  auto decoded = decode(load_entry(slice, geometry, index), rules, guest);
  if (!decoded) return std::unexpected(std::move(decoded).error());

  const Cluster head = *decoded;
  const unsigned subclusters = geometry.subclusters();
  const auto subcluster =
      static_cast<unsigned>(geometry.in_cluster(guest) / geometry.subcluster_size());
  const Sort sort = sort_of(head, subcluster);
  Run run;
  run.kind = sort.kind;
  run.reserved = sort.reserved;
  run.copied = head.copied;
  run.place = head.place;
  const bool placed = sort.kind == RunKind::data || sort.reserved;
  if (placed) run.host = head.host + geometry.in_cluster(guest);
  unsigned end = subcluster + alike(head, subcluster, subclusters);
  std::uint64_t reach = geometry.cluster_start(guest) + end * geometry.subcluster_size();

  // on into the clusters behind, while nothing differs
  while (end == subclusters && sort.kind != RunKind::compressed && reach - guest < length &&
         ++index < entries) {
    auto next = decode(load_entry(slice, geometry, index), rules, reach);
    if (!next) break;  // found out by who asks for it
    if (sort_of(*next, 0) != sort) break;
    if (placed && (next->copied != head.copied || next->host != run.host + (reach - guest))) break;
    end = alike(*next, 0, subclusters);
    reach += end * geometry.subcluster_size();
  }
  run.length = std::min(reach - guest, length);
  return run;
}

}  // namespace formats::qcow2
