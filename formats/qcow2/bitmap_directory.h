// bitmap_directory.h - the dirty bitmaps that an image keeps, as entries of their directory, and
// the entries of a bitmap's table: parsed, checked and put together again. Pure: no I/O.
// Spec: qcow2.rst, "Bitmaps".
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "formats/qcow2/geometry.h"
#include "graph/base/error.h"

namespace formats::qcow2 {

struct Bitmap {
  std::uint64_t table_offset = 0;
  std::uint32_t table_size = 0;  // entries, each for a cluster of bits
  std::uint32_t flags = 0;       // bitmap_flag
  std::uint8_t type = dirty_tracking_bitmap;
  std::uint8_t granularity_bits = 16;  // log2 of the bytes of the disk that a bit stands for
  std::string name;
  std::vector<std::byte> extra_data;  // known to nobody, kept as it is
  bool operator==(const Bitmap&) const = default;

  // In bytes. Of one that is not usable it means something else, or nothing: then it may be 0.
  std::uint64_t granularity() const {
    return granularity_bits < 64 ? std::uint64_t{1} << granularity_bits : 0;
  }
  bool is_in_use() const { return (flags & bitmap_flag::in_use) != 0; }
  bool is_automatic() const { return (flags & bitmap_flag::automatic) != 0; }
  // False where its type, flags or extra data are not known here: it stays in the image as it is.
  bool is_usable() const;
};

inline constexpr std::uint64_t bitmap_bytes_max = 512 * MiB;  // of the bits of one, as in QEMU

// Entries of the table of a bitmap for a disk of `size` bytes.
// Errors: no_space when there would be too many.
Result<std::uint32_t> bitmap_table_size(std::uint64_t size, std::uint64_t granularity,
                                        const Geometry& geometry);

// All entries of a directory that counts `count` of them, for a disk of `size` bytes.
// Errors: corrupt, naming entry, field and value.
Result<std::vector<Bitmap>> parse_bitmap_directory(std::span<const std::byte> directory,
                                                   std::uint32_t count, const Geometry& geometry,
                                                   std::uint64_t size);

// Errors: no_space when there are too many, or a name is too long.
Result<std::vector<std::byte>> format_bitmap_directory(std::span<const Bitmap> bitmaps);

// Where the bits of one entry of a bitmap's table are.
struct BitmapTableEntry {
  enum class Kind : std::uint8_t { zeroes, ones, stored, wrong };
  Kind kind;
  std::uint64_t offset;  // of `stored`
};
BitmapTableEntry parse_bitmap_table_entry(std::uint64_t entry, const Geometry& geometry);
// Entries of `zeroes` and `ones`; that of `stored` is the offset itself.
inline constexpr std::uint64_t bitmap_entry_zeroes = 0;
inline constexpr std::uint64_t bitmap_entry_ones = 1;

}  // namespace formats::qcow2
