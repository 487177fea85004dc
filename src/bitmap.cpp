#include "src/bitmap.h"

#include <fmt/format.h>

#include <cstdio>

#include "graph/bitmap_change.h"
#include "src/image_change.h"

namespace app {
namespace {

using Action = BitmapCommand::Action;

Json flags_of(const graph::DirtyBitmap& bitmap) {
  JsonArray flags;
  if (bitmap.inconsistent()) flags.emplace_back("in-use");
  if (bitmap.enabled()) flags.emplace_back("auto");
  return flags;
}

void print_json(const graph::DirtyBitmaps& bitmaps) {
  JsonArray list;
  for (const auto& bitmap : bitmaps.all()) {
    Json item;
    item.set("name", bitmap->name());
    item.set("granularity", bitmap->granularity());
    item.set("flags", flags_of(*bitmap));
    if (!bitmap->inconsistent()) item.set("dirty-bytes", bitmap->dirty_bytes());
    list.push_back(std::move(item));
  }
  std::printf("%s\n", to_text(Json(std::move(list))).c_str());
}

void print_lines(const graph::DirtyBitmaps& bitmaps) {
  for (const auto& bitmap : bitmaps.all()) {
    std::string state = bitmap->enabled() ? "enabled" : "disabled";
    if (bitmap->inconsistent()) {
      state += ", in use or not stored: good only for removal";
    } else {
      state += fmt::format(", {} bytes dirty", bitmap->dirty_bytes());
    }
    std::printf("%s\n", fmt::format("{}: granularity {}, {}", printable(bitmap->name()),
                                    format_bytes(bitmap->granularity()), state)
                            .c_str());
  }
}

Task<> act(graph::Node& node, const BitmapCommand& command) {
  switch (command.action) {
    case Action::list:
      command.json ? print_json(node.bitmaps()) : print_lines(node.bitmaps());
      co_return ok;
    case Action::add: {
      graph::BitmapTraits traits;
      traits.persistent = true;
      const std::uint64_t unit = command.granularity.value_or(node.bitmap_granularity());
      CO_CHECK(co_await graph::add_bitmap(node, command.name, unit, traits));
      co_return ok;
    }
    case Action::remove:
      co_return co_await graph::remove_bitmap(node, command.name);
    case Action::clear:
      co_return graph::clear_bitmap(node, command.name);
    case Action::enable:
      co_return co_await graph::enable_bitmap(node, command.name);
    case Action::disable:
      co_return graph::disable_bitmap(node, command.name);
  }
  co_return ok;
}

}  // namespace

// The layers below are not opened: their bytes are not asked for.
Task<int> change_bitmap(Worker& worker, const BitmapCommand& command, Drivers drivers) {
  const FileUse use = command.action == Action::list ? FileUse::read : FileUse::change;
  const std::function<Task<>(graph::Node&)> work = [&command](graph::Node& node) {
    return act(node, command);
  };
  CO_CHECK(co_await with_image(worker, drivers, command.image, use, work));
  co_return EXIT_SUCCESS;
}

}  // namespace app
