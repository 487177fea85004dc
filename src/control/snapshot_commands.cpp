#include "src/control/snapshot_commands.h"

#include <algorithm>
#include <optional>

#include "src/control/find_node.h"
#include "src/snapshot_text.h"

namespace app::control {
namespace {

// What a command calls its device: a node, or an export, which stands for the node that it shows.
struct Device {
  Cell* cell;
  std::string name;  // as the client said it
  std::string node;
  Device(Cell& home, std::string said, std::string stands_for)
      : cell(&home), name(std::move(said)), node(std::move(stands_for)) {}
};

Task<Device> find_device(Site& site, const std::string& name) {
  CO_TRY(Cell * cell, co_await cell_with(site, name));
  if (cell != nullptr) co_return Device(*cell, name, name);
  for (const auto& each : site.cells()) {
    for (const ExportConfig* item : each->part().exports) {
      if (item->name != name || !item->snapshot.empty()) continue;
      co_return Device(*each, name, item->node);
    }
  }
  co_return std::unexpected(no_device(name));
}

std::unexpected<Error> refuse(std::string why) {
  return failure(Errc::invalid_argument, std::move(why));
}

// What clients would call the snapshot has to be free.
Result<> check_export_names(Site& site, const Device& device, const std::string& name) {
  const std::map<std::string, const ExportConfig*> snapshots = site.snapshot_exports();
  for (const ExportConfig* item : device.cell->part().exports) {
    if (!item->snapshots || item->node != device.node) continue;
    const std::string wanted = snapshot_export_name(*item, name);
    if (!check_wire_text("the name of an export", wanted)) continue;  // it is called by its id then
    if (!site.lobby().offers()->contains(wanted)) continue;
    const auto snapshot = snapshots.find(wanted);
    if (snapshot != snapshots.end() && snapshot->second == item) continue;  // of the same disk
    return std::unexpected(export_name_taken(*item, wanted));
  }
  return ok;
}

Task<> take_in(const Device& device, const std::string& name) {
  const std::shared_ptr<graph::Node> node = device.cell->graph().find(device.node);
  const std::string where = "device '" + device.name + "'";
  if (!node) co_return std::unexpected(no_device(device.name));
  if (node->common().read_only) co_return refuse("Device '" + device.name + "' is read only");
  if (!node->has_snapshots()) {
    co_return refuse("Block format '" + std::string(node->driver().name) + "' used by " + where +
                     " does not support internal snapshots");
  }
  if (name.empty()) co_return refuse("Name is empty");
  const std::vector<graph::Port> ports = node->ports();
  if (std::ranges::find(ports, name, &graph::Port::name) != ports.end()) {
    co_return refuse("Snapshot with name '" + name + "' already exists on " + where);
  }
  co_return co_await device.cell->take_snapshot(device.node, name);
}

// Of the one to be deleted.
struct Wanted {
  const Json* id;  // null: any
  const Json* name;
  bool is(const graph::Port& port) const {
    return (id == nullptr || *id->string() == port.id) &&
           (name == nullptr || *name->string() == port.name);
  }
  static std::string quoted(const Json* value) {
    return "'" + (value == nullptr ? "null" : *value->string()) + "'";
  }
};

Task<Json> delete_in(const Device& device, Wanted wanted) {
  const std::shared_ptr<graph::Node> node = device.cell->graph().find(device.node);
  if (!node) co_return std::unexpected(no_device(device.name));
  if (wanted.id == nullptr && wanted.name == nullptr) {
    co_return refuse("Name or id must be provided");
  }
  if (!node->has_snapshots()) {
    co_return refuse("Failed to get a snapshot list: Operation not supported");
  }
  const std::vector<graph::Port> ports = node->ports();
  const auto found =
      std::ranges::find_if(ports, [&](const graph::Port& port) { return wanted.is(port); });
  if (found == ports.end()) {
    co_return refuse("Snapshot with id " + Wanted::quoted(wanted.id) + " and name " +
                     Wanted::quoted(wanted.name) + " does not exist on device '" + device.name +
                     "'");
  }
  CO_CHECK(co_await device.cell->delete_snapshot(device.node, *found));
  co_return snapshot_json(*found);
}

}  // namespace

asio::awaitable<Answer<Json>> take_snapshot(Host& host, const Arguments& arguments) {
  const std::string& name = arguments.string("name");
  CO_TRY(const Device device, co_await find_device(host.site(), arguments.string("device")));
  CO_CHECK(check_export_names(host.site(), device, name));
  CO_CHECK(co_await host.site().visit(*device.cell, take_in(device, name)));
  CO_CHECK(co_await host.site().republish(*device.cell));
  co_return Json(JsonObject());
}

asio::awaitable<Answer<Json>> delete_snapshot(Host& host, const Arguments& arguments) {
  const Wanted wanted{arguments.find("id"), arguments.find("name")};
  CO_TRY(const Device device, co_await find_device(host.site(), arguments.string("device")));
  auto deleted = co_await host.site().visit(*device.cell, delete_in(device, wanted));
  CO_CHECK(co_await host.site().republish(*device.cell));
  if (!deleted) co_return std::unexpected(Refusal(std::move(deleted).error()));
  co_return *std::move(deleted);
}

}  // namespace app::control
