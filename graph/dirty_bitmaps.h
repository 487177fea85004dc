// dirty_bitmaps.h - the dirty bitmaps of one node, and whether any of them records. Who adds or
// enables one while there are requests does it through bitmap_change.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "graph/dirty_bitmap.h"

namespace graph {

class DirtyBitmaps {
 public:
  // Keeps the bits `flag` of `flags` set while a bitmap records.
  // Lifetime: `flags` outlives it.
  DirtyBitmaps(std::uint8_t& flags, std::uint8_t flag) : flags_(flags), flag_(flag) {}
  DirtyBitmaps(const DirtyBitmaps&) = delete;
  DirtyBitmaps& operator=(const DirtyBitmaps&) = delete;

  // In the order in which they were added. Lifetime: a bitmap lives until remove().
  const std::vector<std::unique_ptr<DirtyBitmap>>& all() const { return list_; }
  // Null when there is none.
  DirtyBitmap* find(std::string_view name) const;
  // Requires: no bitmap has that name.
  DirtyBitmap& add(std::unique_ptr<DirtyBitmap> bitmap);
  // Requires: it is in the list, and nobody uses it.
  void remove(DirtyBitmap& bitmap);
  void enable(DirtyBitmap& bitmap);
  void disable(DirtyBitmap& bitmap);

  bool recording() const { return (flags_ & flag_) != 0; }
  // Some of `range` was written, or may have been.
  void mark(Range range);
  // The node has become `size` bytes long.
  void resize(std::uint64_t size);

 private:
  void refresh();
  std::uint8_t& flags_;
  const std::uint8_t flag_;
  std::vector<std::unique_ptr<DirtyBitmap>> list_;
};

}  // namespace graph
