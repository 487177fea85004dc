// cell.h - one part of a configuration, alive: a graph, its views, and the server of their exports,
// all on one worker. What happens in it happens on that worker's thread; it is made elsewhere, and
// moves while nobody is connected.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "graph/graph.h"
#include "nbd/server.h"
#include "src/partition.h"

namespace app {

// What clients may choose.
struct Served {
  nbd::Offers offers;
  // Of them, those that `snapshots` of an export has brought.
  std::map<std::string, const ExportConfig*> snapshots;
};

// What a snapshot is called that `origin` serves.
std::string snapshot_export_name(const ExportConfig& origin, std::string_view snapshot);
Error export_name_taken(const ExportConfig& origin, std::string_view wanted);

class Cell {
 public:
  // Lifetime: `home`, the configuration and the drivers outlive the cell.
  Cell(Home& home, Part part, nbd::ServerOptions options, Drivers drivers);
  Cell(const Cell&) = delete;
  Cell& operator=(const Cell&) = delete;

  // Opens all nodes, children first, and makes the exports.
  // Errors: the first thing that does not work, with its position; everything is closed again then.
  Task<> open();
  // The server ends its connections, every writable export is flushed, views are detached, the
  // graph is closed. Errors: the first one, after all has been done; each is logged.
  Task<> close();

  // To another worker: leave_worker() on the old one, then enter_worker() on the new one.
  // Requires: nobody is connected, and until enter_worker() has returned nobody uses the cell.
  Task<> leave_worker();
  Task<> enter_worker(Home& home);

  Task<Served> served();
  // Changes of snapshots, see graph/snapshot_change.h; then what is served is what there is.
  // Requires: there is a node of this name.
  Task<> take_snapshot(std::string node, std::string name);
  // Errors: busy while anybody is connected to it, or the configuration names it.
  Task<> delete_snapshot(std::string node, graph::Port snapshot);

  Home& home() const { return server_.home(); }
  graph::Graph& graph() { return graph_; }
  nbd::Server& server() { return server_; }
  const Part& part() const { return part_; }

 private:
  Task<> open_all();
  Task<> add_export(const ExportConfig& wanted);
  Task<> add_view(const ExportConfig& origin, std::string name, std::string description,
                  graph::ViewOptions options);
  Task<> serve_snapshots();
  Task<> serve_snapshots_of(const ExportConfig& origin);
  Result<std::optional<std::string>> free_name_for(const ExportConfig& origin,
                                                   const graph::Port& snapshot);
  Task<> leave_idle(const std::string& node, const std::string& key);
  Task<> close_view(const std::string& user, std::unique_ptr<graph::BlockBackend> view);

  const Part part_;
  const Drivers drivers_;
  graph::Graph graph_;
  nbd::Server server_;
  struct SnapshotExport {
    const ExportConfig* origin;
    std::string key;  // of the snapshot, as the graph finds it
    SnapshotExport(const ExportConfig& from, std::string wanted)
        : origin(&from), key(std::move(wanted)) {}
  };
  std::map<std::string, SnapshotExport> snapshots_;  // by the names of their exports
};

}  // namespace app
