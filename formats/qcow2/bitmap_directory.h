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
  std::uint32_t table_size = 0;    // entries, each for a cluster of bits
  std::uint32_t flags = 0;         // bitmap_flag
  unsigned granularity_bits = 16;  // log2 of the bytes of the disk that a bit stands for
  std::string name;
  bool operator==(const Bitmap&) const = default;

  std::uint64_t granularity() const { return std::uint64_t{1} << granularity_bits; }
  bool in_use() const { return (flags & 1) != 0; }
};

// All entries of a directory that counts `count` of them, for a disk of `size` bytes.
// Errors: corrupt, naming entry, field and value; not_supported (types, flags or extra data that
// nobody knows).
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

}  // namespace formats::qcow2
