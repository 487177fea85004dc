// dirty_bitmap.h - which parts of a node were written since somebody last asked: one bit for each
// `granularity` bytes. What a dirty bit covers may have changed; what a clean one covers has not.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "graph/base/bytes.h"
#include "graph/base/error.h"
#include "graph/sparse_bits.h"

namespace graph {

inline constexpr std::size_t bitmap_name_max = 1023;          // bytes
inline constexpr std::uint64_t bitmap_granularity_min = 512;  // bytes
inline constexpr std::uint64_t bitmap_granularity_max = 2 * GiB;
// Of a new bitmap: more would need more than 512 MiB of memory at worst, and fit into no image.
inline constexpr std::uint64_t bitmap_bits_max = std::uint64_t{1} << 32;

struct BitmapTraits {
  bool enabled = true;        // records what is written
  bool persistent = false;    // is stored in the image when the node is closed
  bool inconsistent = false;  // was not stored when it should have been: good only for removal
  bool read_only = false;     // the image that holds it can't be written: it can't be changed
};

class DirtyBitmap {
 public:
  // Clean. `size` is the node's, in bytes.
  // Requires: check_bitmap() was content.
  DirtyBitmap(std::string name, std::uint64_t granularity, std::uint64_t size,
              BitmapTraits traits = {});

  const std::string& name() const { return name_; }
  std::uint64_t granularity() const { return granularity_; }  // bytes, a power of two
  std::uint64_t size() const { return size_; }                // bytes
  bool enabled() const { return traits_.enabled; }
  bool persistent() const { return traits_.persistent; }
  bool inconsistent() const { return traits_.inconsistent; }
  bool read_only() const { return traits_.read_only; }
  // While somebody works with it (an export, a job) nobody else may change or remove it.
  bool busy() const { return users_ > 0; }
  void begin_use() { ++users_; }
  void end_use() { --users_; }
  void make_persistent() { traits_.persistent = true; }
  void make_writable() { traits_.read_only = false; }

  // All dirty parts, in whole granules: may be more than the size.
  std::uint64_t dirty_bytes() const { return bits_.ones() * granularity_; }
  // What of `range` lies in the bitmap: the granules that it touches become dirty.
  void mark(Range range);
  // The granules that lie in `range` as a whole become clean; the last one ends with the bitmap.
  void clean(Range range);
  void clean_all() { bits_ = SparseBits(bits_.length()); }
  // Dirty is what is dirty in either. Requires: both have the same size. Granularities may differ.
  void merge(const DirtyBitmap& other);
  // What is new is clean.
  void resize(std::uint64_t size);

  struct Extent {
    std::uint64_t length = 0;  // bytes
    bool dirty = false;
    bool operator==(const Extent&) const = default;
  };
  // From range.offset on, alternating, `extents_max` at most: at least one, and nothing beyond the
  // range. Requires: the range lies in the bitmap and is not empty.
  std::vector<Extent> extents(Range range, std::size_t extents_max) const;
  // Dirty bytes of a range that lies in the bitmap.
  std::uint64_t dirty_bytes_in(Range range) const;

  // As qcow2 stores it: bit i, for granule i, is bit i % 8 of byte i / 8. `first` is the number of
  // a granule, a multiple of 8. What `bytes` has past the end is ignored, or zero.
  std::uint64_t granules() const { return bits_.length(); }
  void store(std::uint64_t first, std::span<std::byte> bytes) const { bits_.store(first, bytes); }
  void load(std::uint64_t first, std::span<const std::byte> bytes) { bits_.load(first, bytes); }

  std::size_t chunks_in_memory() const { return bits_.chunks_in_memory(); }

 private:
  friend class DirtyBitmaps;
  std::uint64_t granules_in(std::uint64_t size) const;
  SparseBits::Part touched(Range range) const;

  std::string name_;
  std::uint64_t granularity_;
  std::uint64_t size_;
  BitmapTraits traits_;
  unsigned users_ = 0;
  SparseBits bits_;
};

// May a node of `size` bytes have such a bitmap?
// Errors: invalid_argument, in QEMU's words.
Result<> check_bitmap(const std::string& name, std::uint64_t granularity, std::uint64_t size);

}  // namespace graph
