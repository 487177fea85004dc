// cell_snapshots.cpp - exports that come and go with the snapshots of their node: `snapshots =
// true`. Each has a view as long as the snapshot is there, so that clients find it open; one that
// nobody is connected to gives way when its snapshot is deleted.
#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "graph/snapshot_change.h"
#include "src/cell.h"
#include "src/snapshot_text.h"

namespace app {
namespace {

// By which the graph finds it.
std::string key_of(const graph::Port& snapshot) {
  return snapshot.id.empty() ? snapshot.name : snapshot.id;
}

std::string description_of(const ExportConfig& origin, const graph::Port& snapshot) {
  std::string text = "snapshot '" + printable(snapshot.name) + "' of " + date_text(snapshot.taken);
  if (!origin.description.empty()) text.insert(0, origin.description + ": ");
  return check_wire_text("the description", text) ? text : "";
}

}  // namespace

std::string snapshot_export_name(const ExportConfig& origin, std::string_view snapshot) {
  return origin.name + "@" + std::string(snapshot);
}

Error export_name_taken(const ExportConfig& origin, std::string_view wanted) {
  return {Errc::invalid_argument,
          fmt::format("export '{}' would serve a snapshot as '{}', and there is an export of that "
                      "name: rename one of them",
                      printable(origin.name), printable(wanted))};
}

Task<Served> Cell::served() {
  Served all;
  all.offers = server_.offers();
  for (const auto& [name, item] : snapshots_) all.snapshots.emplace(name, item.origin);
  co_return std::move(all);
}

Task<> Cell::serve_snapshots() {
  for (const ExportConfig* origin : part_.exports) {
    if (origin->snapshots) CO_CHECK(co_await serve_snapshots_of(*origin));
  }
  co_return ok;
}

// Those that are not served yet. What is served keeps its name.
Task<> Cell::serve_snapshots_of(const ExportConfig& origin) {
  const std::shared_ptr<graph::Node> node = graph_.find(origin.node);
  if (!node->has_snapshots()) {
    co_return std::unexpected(
        at_position(origin.position,
                    Error(Errc::invalid_argument,
                          fmt::format("export '{}': node '{}' can't have snapshots: {} keeps none",
                                      printable(origin.name), node->name(), node->driver().name))));
  }
  const std::vector<graph::Port> ports = node->ports();
  for (const graph::Port& port : ports) {
    const bool is_served = std::ranges::any_of(snapshots_, [&](const auto& entry) {
      return entry.second.origin == &origin && entry.second.key == key_of(port);
    });
    if (is_served) continue;
    CO_TRY(std::optional<std::string> name, free_name_for(origin, port));
    if (!name) continue;
    graph::ViewOptions options("export '" + printable(*name) + "'");
    options.port = key_of(port);
    std::string description = description_of(origin, port);
    CO_CHECK(co_await add_view(origin, *name, std::move(description), std::move(options)));
    snapshots_.emplace(*std::move(name), SnapshotExport(origin, key_of(port)));
  }
  co_return ok;
}

// Images may have several snapshots of one name, or one that can't stand on the wire: then the id
// stands for it. Nothing: so it can't be served. Errors: invalid_argument: another export has the
// name.
Result<std::optional<std::string>> Cell::free_name_for(const ExportConfig& origin,
                                                       const graph::Port& snapshot) {
  for (const std::string& word : {snapshot.name, snapshot.id}) {
    const std::string name = snapshot_export_name(origin, word);
    if (word.empty() || !check_wire_text("the name", name)) continue;
    if (server_.find(name) == nullptr) return std::optional(name);
    const auto other = snapshots_.find(name);
    if (other != snapshots_.end() && other->second.origin == &origin) continue;
    return std::unexpected(at_position(origin.position, export_name_taken(origin, name)));
  }
  home().log.warning(
      fmt::format("export '{}': snapshot '{}' (id '{}') is not served: its name and "
                  "its id are taken, or can't be names of exports",
                  printable(origin.name), printable(snapshot.name), printable(snapshot.id)));
  return std::optional<std::string>();
}

Task<> Cell::take_snapshot(std::string node, std::string name) {
  const std::shared_ptr<graph::Node> live = graph_.find(node);
  assert(live && "who asks has looked");
  CO_CHECK(co_await graph::take_snapshot(*live, std::move(name)));
  const Result<> served = co_await serve_snapshots();
  if (!served) home().log.error(served.error().message);  // it is taken all the same
  co_return ok;
}

Task<> Cell::delete_snapshot(std::string node, graph::Port snapshot) {
  const std::shared_ptr<graph::Node> live = graph_.find(node);
  assert(live && "who asks has looked");
  CO_CHECK(co_await leave_idle(node, key_of(snapshot)));
  auto deleted = co_await graph::delete_snapshot(*live, key_of(snapshot));
  const Result<> served = co_await serve_snapshots();  // again, where it could not be deleted
  if (!served) home().log.error(served.error().message);
  if (!deleted) co_return std::unexpected(std::move(deleted).error());
  co_return ok;
}

// Closes the exports of a snapshot that nobody is connected to.
Task<> Cell::leave_idle(const std::string& node, const std::string& key) {
  for (auto entry = snapshots_.begin(); entry != snapshots_.end();) {
    const bool shows_it = entry->second.origin->node == node && entry->second.key == key;
    const std::unique_ptr<nbd::Export> idle =
        shows_it ? server_.remove_idle(entry->first) : nullptr;
    if (!idle) {
      ++entry;
      continue;
    }
    entry = snapshots_.erase(entry);
    CO_CHECK(co_await graph_.detach(idle->release()));
  }
  co_return ok;
}

}  // namespace app
