#include "src/bitmap.h"

#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <memory>

#include "graph/bitmap_change.h"
#include "graph/graph.h"

namespace app {
namespace {

using Action = BitmapCommand::Action;
using graph::Permission;

OptionValue text(std::string value) { return OptionValue{std::move(value), {}}; }

// Without the layer below, whose bytes are not asked for.
Options description(const BitmapCommand& command) {
  std::error_code unknown;  // then opening it says what is wrong
  const bool is_device = std::filesystem::is_block_file(command.image, unknown);
  const bool only_read = command.action == Action::list;
  auto file = std::make_shared<Options>();
  file->set("driver", text(is_device ? "host_device" : "file"));
  file->set("filename", text(command.image));
  file->set("read-only", OptionValue{only_read, {}});
  Options image;
  image.set("driver", text("qcow2"));
  image.set("file", OptionValue{std::move(file), {}});
  image.set("backing", text(""));
  image.set("read-only", OptionValue{only_read, {}});
  return image;
}

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

graph::ViewOptions view_options(const BitmapCommand& command) {
  graph::ViewOptions options("this command");
  const graph::Permissions read = Permission::consistent_read;
  options.access.taken = read;
  options.access.shared = read;
  if (command.action == Action::list) return options;
  options.access.taken = read | Permission::write;
  options.access.shared = graph::Permissions::none();
  return options;
}

Task<> open_and_act(graph::Graph& graph, const BitmapCommand& command) {
  const Options options = description(command);
  CO_TRY(const std::shared_ptr<graph::Node> node, co_await graph.add("image", options));
  CO_TRY(auto view, co_await graph.attach(node, view_options(command)));
  Result<> done = co_await act(*node, command);
  Result<> detached = co_await graph.detach(std::move(view));
  co_return done ? detached : done;
}

}  // namespace

Task<int> change_bitmap(Worker& worker, const BitmapCommand& command, Drivers drivers) {
  graph::Graph graph(worker.home(), drivers);
  Result<> done = co_await open_and_act(graph, command);
  Result<> closed = co_await graph.close();  // what was changed is stored here
  if (done) done = closed;
  if (!done) co_return std::unexpected(std::move(done).error());
  co_return EXIT_SUCCESS;
}

}  // namespace app
