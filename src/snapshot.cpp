#include "src/snapshot.h"

#include <cstdio>

#include "graph/snapshot_change.h"
#include "src/image_change.h"
#include "src/snapshot_text.h"

namespace app {
namespace {

using Action = SnapshotCommand::Action;

void print(const std::string& line) { std::printf("%s\n", line.c_str()); }

void print_list(const graph::Node& node, const SnapshotCommand& command) {
  JsonArray list;
  for (const graph::Port& each : node.ports()) {
    if (!command.json) {
      print(snapshot_line(each));
    } else {
      list.push_back(snapshot_json(each));
    }
  }
  if (command.json) print(to_text(Json(std::move(list))));
}

Task<> act(graph::Node& node, const SnapshotCommand& command) {
  switch (command.action) {
    case Action::list:
      print_list(node, command);
      co_return ok;
    case Action::create: {
      CO_TRY(const graph::Port taken, co_await graph::take_snapshot(node, command.name));
      if (command.json) print(to_text(snapshot_json(taken)));
      co_return ok;
    }
    case Action::apply:
      co_return co_await graph::apply_snapshot(node, command.name);
    case Action::remove: {
      CO_TRY(const graph::Port gone, co_await graph::delete_snapshot(node, command.name));
      if (command.json) print(to_text(snapshot_json(gone)));
      co_return ok;
    }
  }
  co_return ok;
}

}  // namespace

Task<int> change_snapshot(Worker& worker, const SnapshotCommand& command, Drivers drivers) {
  const FileUse use = command.action == Action::list ? FileUse::read : FileUse::change;
  const std::function<Task<>(graph::Node&)> work = [&command](graph::Node& node) {
    return act(node, command);
  };
  CO_CHECK(co_await with_image(worker, drivers, command.image, use, work));
  co_return EXIT_SUCCESS;
}

}  // namespace app
