// site.h - what a configuration describes, alive on one worker: the graph, its views, and the
// server of the exports. Knows no sockets and no signals.
#pragma once

#include "graph/graph.h"
#include "nbd/server.h"
#include "src/config.h"

namespace app {

class Site {
 public:
  // Lifetime: `home`, `config` and the drivers outlive the site.
  Site(Home& home, const Config& config, Drivers drivers);
  Site(const Site&) = delete;
  Site& operator=(const Site&) = delete;

  // Opens all nodes, children first, and makes the exports.
  // Errors: the first thing that does not work, with its position; everything is closed again then.
  Task<> open();
  // The server ends its connections, every writable export is flushed, views are detached, the
  // graph is closed. Errors: the first one, after all has been done; each is logged.
  Task<> close();

  graph::Graph& graph() { return graph_; }
  nbd::Server& server() { return server_; }

 private:
  Task<> open_all();
  Task<> add_export(const ExportConfig& wanted);
  Task<> close_view(const std::string& user, std::unique_ptr<graph::BlockBackend> view);

  Home& home_;
  const Config& config_;
  graph::Graph graph_;
  nbd::Server server_;
};

}  // namespace app
