// cell.h - one part of a configuration, alive: a graph, its views, and the server of their exports,
// all on one worker. What happens in it happens on that worker's thread; it is made elsewhere, and
// moves while nobody is connected.
#pragma once

#include "graph/graph.h"
#include "nbd/server.h"
#include "src/partition.h"

namespace app {

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

  Home& home() const { return server_.home(); }
  graph::Graph& graph() { return graph_; }
  nbd::Server& server() { return server_; }
  const Part& part() const { return part_; }

 private:
  Task<> open_all();
  Task<> add_export(const ExportConfig& wanted);
  Task<> close_view(const std::string& user, std::unique_ptr<graph::BlockBackend> view);

  const Part part_;
  const Drivers drivers_;
  graph::Graph graph_;
  nbd::Server server_;
};

}  // namespace app
