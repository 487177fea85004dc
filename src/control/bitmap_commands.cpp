#include "src/control/bitmap_commands.h"

#include <array>
#include <memory>
#include <vector>

#include "graph/bitmap_change.h"
#include "src/control/find_node.h"

namespace app::control {
namespace {

using Change = Task<> (*)(graph::Node& node, const std::string& name);
using Snapshot = std::unique_ptr<graph::DirtyBitmap>;

Error no_node(const std::string& node) {
  return {Errc::invalid_argument, "Node '" + node + "' not found"};
}

Task<> change_in(Cell& cell, const std::string& node, const std::string& name, Change change) {
  const std::shared_ptr<graph::Node> found = cell.graph().find(node);
  if (!found) co_return std::unexpected(no_node(node));
  co_return co_await change(*found, name);
}

asio::awaitable<Answer<Json>> change(Host& host, const Arguments& arguments, Change change) {
  const std::string& node = arguments.string("node");
  const std::string& name = arguments.string("name");
  CO_TRY(Cell * cell, co_await cell_with(host.site(), node));
  if (cell == nullptr) co_return std::unexpected(Refusal(no_node(node)));
  CO_CHECK(co_await host.site().visit(*cell, change_in(*cell, node, name, change)));
  co_return Json(JsonObject());
}

// 0: as the node says.
Task<> add_in(Cell& cell, const std::string& node, const std::string& name,
              std::uint32_t granularity, graph::BitmapTraits traits) {
  const std::shared_ptr<graph::Node> found = cell.graph().find(node);
  if (!found) co_return std::unexpected(no_node(node));
  const std::uint64_t unit = granularity == 0 ? found->bitmap_granularity() : granularity;
  auto added = co_await graph::add_bitmap(*found, name, unit, traits);
  if (!added) co_return std::unexpected(std::move(added).error());
  co_return ok;
}

Task<> remove(graph::Node& node, const std::string& name) {
  return graph::remove_bitmap(node, name);
}
Task<> enable(graph::Node& node, const std::string& name) {
  return graph::enable_bitmap(node, name);
}
Task<> disable(graph::Node& node, const std::string& name) {
  co_return graph::disable_bitmap(node, name);
}
Task<> clear(graph::Node& node, const std::string& name) {
  co_return graph::clear_bitmap(node, name);
}

struct BitmapName {
  std::string node;
  std::string bitmap;
  BitmapName(std::string where, std::string name)
      : node(std::move(where)), bitmap(std::move(name)) {}
};

// Each is the name of a bitmap of `node`, or names its node, too.
Result<std::vector<BitmapName>> sources_in(const JsonArray& list, const std::string& node) {
  constexpr std::array named{Argument{"node", ArgumentKind::string},
                             Argument{"name", ArgumentKind::string}};
  std::vector<BitmapName> sources;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string path = "bitmaps[" + std::to_string(i) + "]";
    if (const std::string* name = list[i].string()) {
      sources.emplace_back(node, *name);
    } else if (list[i].object() != nullptr) {
      if (Result<> whole = check_arguments(list[i], named, path + "."); !whole) {
        return std::unexpected(std::move(whole).error());
      }
      const Arguments source(list[i]);
      sources.emplace_back(source.string("node"), source.string("name"));
    } else {
      return failure(Errc::invalid_argument,
                     "Invalid parameter type for '" + path + "', expected: BlockDirtyBitmapOrStr");
    }
  }
  return sources;
}

// A copy, which may go to another worker.
Task<Snapshot> snapshot_in(Cell& cell, const BitmapName& source) {
  const std::shared_ptr<graph::Node> node = cell.graph().find(source.node);
  if (!node) co_return std::unexpected(no_node(source.node));
  CO_TRY(const graph::DirtyBitmap* bitmap,
         graph::bitmap_for(*node, source.bitmap, graph::BitmapUse::read));
  auto copy =
      std::make_unique<graph::DirtyBitmap>(bitmap->name(), bitmap->granularity(), bitmap->size());
  copy->merge(*bitmap);
  co_return std::move(copy);
}

Task<> merge_in(Cell& cell, const std::string& node, const std::string& target,
                const std::vector<Snapshot>& sources) {
  const std::shared_ptr<graph::Node> found = cell.graph().find(node);
  if (!found) co_return std::unexpected(no_node(node));
  CO_TRY(graph::DirtyBitmap * bitmap, graph::bitmap_for(*found, target, graph::BitmapUse::change));
  for (const Snapshot& source : sources) {
    if (source->size() == bitmap->size()) continue;
    co_return failure(Errc::invalid_argument,
                      "Bitmaps are of different sizes (destination size is " +
                          std::to_string(bitmap->size()) + ", source size is " +
                          std::to_string(source->size()) + ") and can't be merged");
  }
  for (const Snapshot& source : sources) bitmap->merge(*source);
  co_return ok;
}

}  // namespace

asio::awaitable<Answer<Json>> add_bitmap(Host& host, const Arguments& arguments) {
  const std::string& node = arguments.string("node");
  const std::string& name = arguments.string("name");
  CO_TRY(Cell * cell, co_await cell_with(host.site(), node));
  if (cell == nullptr) {
    co_return std::unexpected(Refusal(no_device(node)));
  }
  graph::BitmapTraits traits;
  traits.enabled = !arguments.boolean("disabled");
  traits.persistent = arguments.boolean("persistent");
  std::uint32_t granularity = arguments.uint32("granularity", 0);
  if (granularity == 0 && arguments.find("granularity") != nullptr) granularity = 1;  // refused
  CO_CHECK(co_await host.site().visit(*cell, add_in(*cell, node, name, granularity, traits)));
  co_return Json(JsonObject());
}

asio::awaitable<Answer<Json>> remove_bitmap(Host& host, const Arguments& arguments) {
  return change(host, arguments, remove);
}
asio::awaitable<Answer<Json>> clear_bitmap(Host& host, const Arguments& arguments) {
  return change(host, arguments, clear);
}
asio::awaitable<Answer<Json>> enable_bitmap(Host& host, const Arguments& arguments) {
  return change(host, arguments, enable);
}
asio::awaitable<Answer<Json>> disable_bitmap(Host& host, const Arguments& arguments) {
  return change(host, arguments, disable);
}

asio::awaitable<Answer<Json>> merge_bitmaps(Host& host, const Arguments& arguments) {
  const std::string& node = arguments.string("node");
  const std::string& target = arguments.string("target");
  CO_TRY(const std::vector<BitmapName> names,
         sources_in(*arguments.find("bitmaps")->array(), node));
  CO_TRY(Cell * cell, co_await cell_with(host.site(), node));
  if (cell == nullptr) co_return std::unexpected(Refusal(no_node(node)));
  // the target first, as QEMU does: with nothing to merge it is only looked at
  const std::vector<Snapshot> nothing;
  CO_CHECK(co_await host.site().visit(*cell, merge_in(*cell, node, target, nothing)));
  std::vector<Snapshot> sources;
  for (const BitmapName& name : names) {
    CO_TRY(Cell * there, co_await cell_with(host.site(), name.node));
    if (there == nullptr) co_return std::unexpected(Refusal(no_node(name.node)));
    CO_TRY(Snapshot source, co_await host.site().visit(*there, snapshot_in(*there, name)));
    sources.push_back(std::move(source));
  }
  CO_CHECK(co_await host.site().visit(*cell, merge_in(*cell, node, target, sources)));
  co_return Json(JsonObject());
}

}  // namespace app::control
