#include "graph/dirty_bitmaps.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace graph {
namespace {

// What is inconsistent is trusted by nobody, so that nothing is lost.
bool records(const DirtyBitmap& bitmap) { return bitmap.enabled() && !bitmap.inconsistent(); }

}  // namespace

DirtyBitmap* DirtyBitmaps::find(std::string_view name) const {
  const auto found =
      std::ranges::find_if(list_, [&](const auto& bitmap) { return bitmap->name() == name; });
  return found == list_.end() ? nullptr : found->get();
}

DirtyBitmap& DirtyBitmaps::add(std::unique_ptr<DirtyBitmap> bitmap) {
  assert(find(bitmap->name()) == nullptr);
  list_.push_back(std::move(bitmap));
  refresh();
  return *list_.back();
}

void DirtyBitmaps::remove(DirtyBitmap& bitmap) {
  assert(!bitmap.busy());
  std::erase_if(list_, [&](const auto& item) { return item.get() == &bitmap; });
  refresh();
}

void DirtyBitmaps::enable(DirtyBitmap& bitmap) {
  bitmap.traits_.enabled = true;
  refresh();
}

void DirtyBitmaps::disable(DirtyBitmap& bitmap) {
  bitmap.traits_.enabled = false;
  refresh();
}

void DirtyBitmaps::mark(Range range) {
  for (const auto& bitmap : list_) {
    if (records(*bitmap)) bitmap->mark(range);
  }
}

void DirtyBitmaps::resize(std::uint64_t size) {
  for (const auto& bitmap : list_) bitmap->resize(size);
}

void DirtyBitmaps::refresh() {
  const bool any = std::ranges::any_of(list_, [](const auto& bitmap) { return records(*bitmap); });
  flags_ = static_cast<std::uint8_t>(any ? flags_ | flag_ : flags_ & ~flag_);
}

}  // namespace graph
