#include "graph/bitmap_change.h"

#include <utility>

namespace graph {

Result<DirtyBitmap*> bitmap_for(const Node& node, std::string_view name, BitmapUse use) {
  DirtyBitmap* bitmap = node.bitmaps().find(name);
  const std::string quoted = "'" + std::string(name) + "'";
  if (bitmap == nullptr) {
    return failure(Errc::invalid_argument, "Dirty bitmap " + quoted + " not found");
  }
  if (bitmap->busy()) {
    return failure(Errc::busy, "Bitmap " + quoted +
                                   " is currently in use by another operation and cannot be used");
  }
  if (bitmap->read_only() && use != BitmapUse::read) {
    return failure(Errc::permission_denied,
                   "Bitmap " + quoted + " is readonly and cannot be modified");
  }
  if (bitmap->inconsistent() && use != BitmapUse::remove) {
    return failure(Errc::invalid_argument,
                   "Bitmap " + quoted + " is inconsistent and cannot be used");
  }
  return bitmap;
}

Task<DirtyBitmap*> add_bitmap(Node& node, std::string name, std::uint64_t granularity,
                              BitmapTraits traits) {
  CO_CHECK(check_bitmap(name, granularity, node.size()));
  if (traits.persistent) CO_CHECK(co_await node.check_persistent_bitmap(name, granularity));
  const DrainedSection still = co_await DrainedSection::begin(node);
  // again: the world may have changed meanwhile
  CO_CHECK(check_bitmap(name, granularity, node.size()));
  if (node.bitmaps().find(name) != nullptr) {
    co_return failure(Errc::invalid_argument, "Bitmap already exists: " + name);
  }
  auto bitmap = std::make_unique<DirtyBitmap>(std::move(name), granularity, node.size(), traits);
  co_return &node.bitmaps().add(std::move(bitmap));
}

Task<> remove_bitmap(Node& node, std::string_view name) {
  CO_TRY(DirtyBitmap * bitmap, bitmap_for(node, name, BitmapUse::remove));
  if (bitmap->persistent()) {
    bitmap->begin_use();  // nobody else begins while it goes
    const DrainedSection still = co_await DrainedSection::begin(node);
    Result<> forgotten = co_await node.forget_persistent_bitmap(bitmap->name());
    bitmap->end_use();
    if (!forgotten) co_return forgotten;
  }
  node.bitmaps().remove(*bitmap);
  co_return ok;
}

Task<> enable_bitmap(Node& node, std::string_view name) {
  CO_CHECK(bitmap_for(node, name, BitmapUse::change));
  const DrainedSection still = co_await DrainedSection::begin(node);
  CO_TRY(DirtyBitmap * bitmap, bitmap_for(node, name, BitmapUse::change));
  node.bitmaps().enable(*bitmap);
  co_return ok;
}

Result<> disable_bitmap(Node& node, std::string_view name) {
  TRY(DirtyBitmap * bitmap, bitmap_for(node, name, BitmapUse::change));
  node.bitmaps().disable(*bitmap);
  return ok;
}

Result<> clear_bitmap(Node& node, std::string_view name) {
  TRY(DirtyBitmap * bitmap, bitmap_for(node, name, BitmapUse::change));
  bitmap->clean_all();
  return ok;
}

}  // namespace graph
