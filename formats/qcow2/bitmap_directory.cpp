#include "formats/qcow2/bitmap_directory.h"

#include <fmt/format.h>

#include <utility>

#include "formats/qcow2/layout.h"

namespace formats::qcow2 {
namespace {

constexpr std::uint64_t bitmap_bytes_max = 512 * MiB;  // of the bits of one, as in QEMU
constexpr std::uint64_t ones_bit = 1;

template <class... Args>
std::unexpected<Error> bad(std::uint32_t index, fmt::format_string<Args...> format,
                           Args&&... args) {
  return failure(Errc::corrupt, fmt::format("qcow2: bitmap directory entry {}: ", index) +
                                    fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
std::unexpected<Error> unknown(std::uint32_t index, fmt::format_string<Args...> format,
                               Args&&... args) {
  return failure(Errc::not_supported, fmt::format("qcow2: bitmap directory entry {}: ", index) +
                                          fmt::format(format, std::forward<Args>(args)...));
}

Result<> check_entry(const RawBitmapEntry& raw, std::uint32_t index, const Geometry& geometry,
                     std::uint64_t size) {
  const std::uint64_t entries = raw.table_size;
  if (raw.table_offset == 0 || !geometry.is_cluster_aligned(raw.table_offset) ||
      raw.table_offset > host_offset_max) {
    return bad(index, "a table can't be at {:#x}", raw.table_offset.get());
  }
  if (entries == 0 || entries * 8 > bitmap_table_bytes_max) {
    return bad(index, "table_size is {}, it can be 1 to {}", entries, bitmap_table_bytes_max / 8);
  }
  if (raw.granularity_bits < granularity_bits_min || raw.granularity_bits > granularity_bits_max) {
    return bad(index, "granularity_bits is {}, it can be {} to {}", raw.granularity_bits,
               granularity_bits_min, granularity_bits_max);
  }
  if (raw.name_size == 0 || raw.name_size > bitmap_name_max) {
    return bad(index, "name_size is {}, it can be 1 to {}", raw.name_size.get(), bitmap_name_max);
  }
  if ((raw.flags & ~bitmap_flag::known) != 0) {
    return unknown(index, "flags {:#x} are not known here", raw.flags.get());
  }
  if (raw.type != dirty_tracking_bitmap) {
    return unknown(index, "type {} is not known here", raw.type);
  }
  if (raw.extra_data_size != 0) {
    return unknown(index, "{} bytes of extra data are not known here", raw.extra_data_size.get());
  }
  const std::uint64_t bytes = entries << geometry.cluster_bits;
  if (bytes > bitmap_bytes_max) {
    return bad(index, "{} bytes of bits are too many, the most is {}", bytes, bitmap_bytes_max);
  }
  // one that is in use may be out of step with the disk
  const std::uint64_t bits_needed =
      (size >> raw.granularity_bits) +
      ((size & ((std::uint64_t{1} << raw.granularity_bits) - 1)) != 0 ? 1 : 0);
  if ((raw.flags & bitmap_flag::in_use) == 0 && bits_needed > bytes * 8) {
    return bad(index, "{} bits are too few for a disk of {} bytes", bytes * 8, size);
  }
  return ok;
}

}  // namespace

Result<std::vector<Bitmap>> parse_bitmap_directory(std::span<const std::byte> directory,
                                                   std::uint32_t count, const Geometry& geometry,
                                                   std::uint64_t size) {
  std::vector<Bitmap> bitmaps;
  std::uint64_t at = 0;
  for (std::uint32_t index = 0; index < count; ++index) {
    ByteReader reader(directory.subspan(at));
    const auto raw = reader.take<RawBitmapEntry>();
    if (!raw) return bad(index, "the directory of {} bytes ends before it", directory.size());
    CHECK(check_entry(*raw, index, geometry, size));
    const std::uint64_t bytes = align_up(sizeof(RawBitmapEntry) + raw->name_size, 8);
    if (bytes > directory.size() - at) {
      return bad(index, "the directory of {} bytes ends within it", directory.size());
    }
    Bitmap bitmap;
    bitmap.table_offset = raw->table_offset;
    bitmap.table_size = raw->table_size;
    bitmap.flags = raw->flags;
    bitmap.granularity_bits = raw->granularity_bits;
    bitmap.name = *reader.take_string(raw->name_size);
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
    raw.type = dirty_tracking_bitmap;
    raw.granularity_bits = static_cast<std::uint8_t>(each.granularity_bits);
    raw.name_size = static_cast<std::uint16_t>(each.name.size());
    const auto head = bytes_of(raw);
    const auto name = bytes_of(std::string_view(each.name));
    directory.insert(directory.end(), head.begin(), head.end());
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
