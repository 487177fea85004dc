#include "src/control/query_commands.h"

#include <set>

#include "src/control/block_info.h"
#include "src/control/dispatch.h"

namespace app::control {

// A copy of what is served, which needs no worker.
asio::awaitable<Answer<Json>> query_block_exports(Host& host, const Arguments&) {
  JsonArray exports;
  const auto add = [&](const std::string& name, const std::string& node) {
    Json info;
    info.set("node-name", node);
    info.set("shutting-down", host.site().lobby().stopping());
    info.set("type", "nbd");
    info.set("id", name);
    exports.push_back(std::move(info));
  };
  for (const auto& cell : host.site().cells()) {
    for (const ExportConfig* item : cell->part().exports) {
      add(item->name, item->node);
    }
  }
  for (const auto& [name, origin] : host.site().snapshot_exports()) add(name, origin->node);
  co_return Json(std::move(exports));
}

asio::awaitable<Answer<Json>> query_commands(Host&, const Arguments&) {
  JsonArray names;
  const auto add = [&](std::string_view name) {
    Json command;
    command.set("name", name);
    names.push_back(std::move(command));
  };
  add("qmp_capabilities");
  for (const Command& command : commands()) add(command.name);
  co_return Json(std::move(names));
}

// A node that is read-only for everybody may live in several cells: it is told once.
asio::awaitable<Answer<Json>> query_named_block_nodes(Host& host, const Arguments& arguments) {
  const Backing backing = arguments.boolean("flat") ? Backing::left_out : Backing::nested;
  JsonArray nodes;
  std::set<std::string> told;
  for (const auto& cell : host.site().cells()) {
    CO_TRY(JsonArray found, co_await host.site().visit(*cell, describe_nodes(*cell, backing)));
    for (Json& node : found) {
      const std::string& name = *node.find("node-name")->string();
      if (name.starts_with('#') || told.insert(name).second) nodes.push_back(std::move(node));
    }
  }
  co_return Json(std::move(nodes));
}

asio::awaitable<Answer<Json>> query_version(Host&, const Arguments&) { co_return version(); }

// The session does it, once the client has the reply.
asio::awaitable<Answer<Json>> quit(Host&, const Arguments&) { co_return Json(JsonObject()); }

}  // namespace app::control
