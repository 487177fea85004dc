#include "formats/qcow2/bitmap_directory.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "formats/qcow2/layout.h"
#include "graph/base/log.h"

namespace formats::qcow2 {
namespace {

constexpr std::uint64_t ones_bit = bitmap_entry_ones;

template <class... Args>
std::unexpected<Error> bad(std::uint32_t index, fmt::format_string<Args...> format,
                           Args&&... args) {
  return failure(Errc::corrupt, fmt::format("qcow2: bitmap directory entry {}: ", index) +
                                    fmt::format(format, std::forward<Args>(args)...));
}
// Granules of a disk of `size` bytes.
std::uint64_t bits_needed(std::uint64_t size, std::uint64_t granularity) {
  return size / granularity + (size % granularity != 0 ? 1 : 0);
}

// What holds for all of them, whatever they are.
Result<> check_entry(const RawBitmapEntry& raw, std::uint32_t index, const Geometry& geometry) {
  const std::uint64_t entries = raw.table_size;
  if (raw.table_offset == 0 || !geometry.is_cluster_aligned(raw.table_offset) ||
      raw.table_offset > host_offset_max) {
    return bad(index, "a table can't be at {:#x}", raw.table_offset.get());
  }
  if (entries == 0 || entries * 8 > bitmap_table_bytes_max) {
    return bad(index, "table_size is {}, it can be 1 to {}", entries, bitmap_table_bytes_max / 8);
  }
  if (raw.name_size == 0 || raw.name_size > bitmap_name_max) {
    return bad(index, "name_size is {}, it can be 1 to {}", raw.name_size.get(), bitmap_name_max);
  }
  return ok;
}

Result<> check_usable(const Bitmap& bitmap, std::uint32_t index, const Geometry& geometry,
                      std::uint64_t size) {
  if (bitmap.granularity_bits < granularity_bits_min ||
      bitmap.granularity_bits > granularity_bits_max) {
    return bad(index, "granularity_bits is {}, it can be {} to {}", bitmap.granularity_bits,
               granularity_bits_min, granularity_bits_max);
  }
  const std::uint64_t bytes = std::uint64_t{bitmap.table_size} << geometry.cluster_bits;
  if (bytes > bitmap_bytes_max) {
    return bad(index, "{} bytes of bits are too many, the most is {}", bytes, bitmap_bytes_max);
  }
  // one that is in use may be out of step with the disk
  if (!bitmap.is_in_use() && bits_needed(size, bitmap.granularity()) > bytes * 8) {
    return bad(index, "{} bits are too few for a disk of {} bytes", bytes * 8, size);
  }
  return ok;
}

}  // namespace

bool Bitmap::is_usable() const {
  return type == dirty_tracking_bitmap && (flags & ~bitmap_flag::known) == 0 &&
         (extra_data.empty() || (flags & bitmap_flag::extra_data_compatible) != 0);
}

Result<std::uint32_t> bitmap_table_size(std::uint64_t size, std::uint64_t granularity,
                                        const Geometry& geometry) {
  const std::uint64_t bits = bits_needed(size, granularity);
  const std::uint64_t clusters = geometry.clusters(bits / 8 + (bits % 8 != 0 ? 1 : 0));
  if ((clusters << geometry.cluster_bits) > bitmap_bytes_max) {
    return failure(
        Errc::no_space,
        fmt::format("qcow2: a bitmap of {} bits for {} bytes is too large: take a larger "
                    "granularity than {}",
                    bits, size, granularity));
  }
  return static_cast<std::uint32_t>(std::max<std::uint64_t>(clusters, 1));
}

Result<std::vector<Bitmap>> parse_bitmap_directory(std::span<const std::byte> directory,
                                                   std::uint32_t count, const Geometry& geometry,
                                                   std::uint64_t size) {
  std::vector<Bitmap> bitmaps;
  std::unordered_set<std::string> names;
  std::uint64_t at = 0;
  for (std::uint32_t index = 0; index < count; ++index) {
    ByteReader reader(directory.subspan(at));
    const auto raw = reader.take<RawBitmapEntry>();
    if (!raw) return bad(index, "the directory of {} bytes ends before it", directory.size());
    CHECK(check_entry(*raw, index, geometry));
    const std::uint64_t bytes =
        align_up(sizeof(RawBitmapEntry) + raw->extra_data_size + raw->name_size, 8);
    if (bytes > directory.size() - at) {
      return bad(index, "the directory of {} bytes ends within it", directory.size());
    }
    Bitmap bitmap;
    bitmap.table_offset = raw->table_offset;
    bitmap.table_size = raw->table_size;
    bitmap.flags = raw->flags;
    bitmap.type = raw->type;
    bitmap.granularity_bits = raw->granularity_bits;
    const auto extra = directory.subspan(at + sizeof(RawBitmapEntry), raw->extra_data_size);
    bitmap.extra_data.assign(extra.begin(), extra.end());
    const auto name =
        directory.subspan(at + sizeof(RawBitmapEntry) + bitmap.extra_data.size(), raw->name_size);
    bitmap.name.assign(reinterpret_cast<const char*>(name.data()), name.size());
    if (bitmap.is_usable()) CHECK(check_usable(bitmap, index, geometry, size));
    if (!names.insert(bitmap.name).second) {
      return bad(index, "the name '{}' is there twice", printable(bitmap.name));
    }
    bitmaps.push_back(std::move(bitmap));
    at += bytes;
  }
  if (at != directory.size()) {
    return failure(Errc::corrupt,
                   fmt::format("qcow2: {} bitmaps take {} bytes of a bitmap directory of {}", count,
                               at, directory.size()));
  }
  return bitmaps;
}

Result<std::vector<std::byte>> format_bitmap_directory(std::span<const Bitmap> bitmaps) {
  std::vector<std::byte> directory;
  for (const Bitmap& each : bitmaps) {
    if (each.name.empty() || each.name.size() > bitmap_name_max) {
      return failure(Errc::no_space,
                     fmt::format("qcow2: the name of a bitmap has 1 to {} bytes, not {}",
                                 bitmap_name_max, each.name.size()));
    }
    RawBitmapEntry raw{};
    raw.table_offset = each.table_offset;
    raw.table_size = each.table_size;
    raw.flags = each.flags;
    raw.type = each.type;
    raw.granularity_bits = each.granularity_bits;
    raw.name_size = static_cast<std::uint16_t>(each.name.size());
    raw.extra_data_size = static_cast<std::uint32_t>(each.extra_data.size());
    const auto head = bytes_of(raw);
    const auto name = bytes_of(std::string_view(each.name));
    directory.insert(directory.end(), head.begin(), head.end());
    directory.insert(directory.end(), each.extra_data.begin(), each.extra_data.end());
    directory.insert(directory.end(), name.begin(), name.end());
    directory.resize(align_up(directory.size(), 8));
  }
  if (bitmaps.size() > bitmaps_max || directory.size() > bitmap_directory_bytes_max) {
    return failure(Errc::no_space, fmt::format("qcow2: {} bitmaps are too many, the most is {}",
                                               bitmaps.size(), bitmaps_max));
  }
  return directory;
}

BitmapTableEntry parse_bitmap_table_entry(std::uint64_t entry, const Geometry& geometry) {
  using Kind = BitmapTableEntry::Kind;
  const std::uint64_t offset = entry & offset_mask;
  if ((entry & ~(offset_mask | ones_bit)) != 0) return {Kind::wrong, 0};
  if (offset == 0) return {(entry & ones_bit) != 0 ? Kind::ones : Kind::zeroes, 0};
  if ((entry & ones_bit) != 0 || !geometry.is_cluster_aligned(offset)) return {Kind::wrong, 0};
  return {Kind::stored, offset};
}

}  // namespace formats::qcow2
