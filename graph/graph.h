// graph.h - the nodes of one worker by name: built piece by piece, changed by transactions, closed
// from the top. Rules G-1 to G-7 of docs/architecture.md.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graph/base/options.h"
#include "graph/block_backend.h"
#include "graph/driver.h"
#include "graph/transaction.h"

namespace graph {

// Held by whoever changes the graph: one at a time, first come, first served. A node must not wait
// for a change of the graph while it takes part in one.
class Turn {
 public:
  Turn(Turn&& other) noexcept : graph_(std::exchange(other.graph_, nullptr)) {}
  Turn& operator=(Turn&&) = delete;
  ~Turn();

 private:
  friend class Graph;
  explicit Turn(Graph& graph) : graph_(&graph) {}
  Graph* graph_;
};

class Graph {
 public:
  // Lifetime: `home` and the drivers outlive the graph.
  Graph(Home& home, std::span<const Driver* const> drivers);
  // Requires: close() has returned, or no node was ever added.
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // Opens a node as `options` (driver, its keys, the common keys) say. An empty name makes an
  // implicit one, which lives as long as it has parents or somebody keeps this pointer; a named one
  // lives until remove(). Errors: invalid_argument (name, keys, unknown driver or child), busy
  // (permissions), the driver's.
  Task<std::shared_ptr<Node>> add(std::string name, const Options& options,
                                  CommonOptions inherited = {});
  // The same for a node that was built by the program itself.
  Task<std::shared_ptr<Node>> insert(std::string name, const Driver& driver, CommonOptions common,
                                     std::unique_ptr<Node> node);
  // G-4. Errors: busy while anything uses it; what closing says, and then it is gone nevertheless
  // (G-7).
  Task<> remove(std::string_view name);
  std::shared_ptr<Node> find(std::string_view name) const;

  // A new user of `node`. Warns when `node`'s format must grow a child that can't.
  // Its size is what the node and those below it have now, see Node::reread_size(). Errors: busy
  // (permissions), read_only, invalid_argument (a window that leaves the node).
  Task<std::unique_ptr<BlockBackend>> attach(std::shared_ptr<Node> node, ViewOptions options);
  // Waits for the view's requests, turns away those that wait for the end of a drain; then it is
  // gone, and so are implicit nodes that nobody else uses. Errors: what closing them says.
  Task<> detach(std::unique_ptr<BlockBackend> view);
  // Every path to `below` leads through `filter`, which shows it, from now on.
  // Errors: as Transaction::commit.
  Task<> insert_filter(std::shared_ptr<Node> filter, std::shared_ptr<Node> below);
  // Undoes it: parents of `filter` use what it shows. The filter stays, without users.
  Task<> bypass_filter(std::shared_ptr<Node> filter);

  // Closes implicit nodes that lost their last user.
  // Errors: the first one that a node reports; all are closed.
  Task<> reap();
  // Drains everything (D-6), flushes, closes all nodes, parents first.
  // Errors: the first failure; everything is closed all the same.
  // Requires: no view is attached.
  Task<> close();

  // To another worker: leave_worker() on the old one, then enter_worker() on the new one.
  // Requires: no view has a request in flight, nobody changes the graph, and until enter_worker()
  // has returned nobody uses it.
  void leave_worker();
  void enter_worker(Home& home);

  asio::awaitable<Turn> turn();
  // All nodes, parents first.
  std::vector<Node*> nodes() const;
  // Limits and sizes of all nodes, children first.
  void refresh();
  Home& home() const { return *home_; }
  const Driver* driver(std::string_view name) const;
  std::vector<std::string> driver_names() const;

 private:
  friend class OpenContext;
  friend class Turn;
  std::string implicit_name();
  Task<std::unique_ptr<BlockBackend>> attach_to(std::shared_ptr<Node> node, ViewOptions options);
  Task<std::shared_ptr<Node>> open_port(std::shared_ptr<Node> node, std::string wanted);
  Task<std::shared_ptr<Node>> place(std::string name, const Driver& driver, CommonOptions common,
                                    std::unique_ptr<Node> node);
  Task<> close_node(std::shared_ptr<Node> node);
  Task<> release(std::unique_ptr<BlockBackend> view);
  Task<> give_up(OpenContext& context);
  Task<> reread_sizes(std::shared_ptr<Node> node);
  void warn_if_growth_is_impossible(Node& node);

  Home* home_;
  std::vector<const Driver*> drivers_;
  std::map<std::string, std::shared_ptr<Node>, std::less<>> nodes_;  // implicit ones as #blockNNN
  unsigned implicit_ = 0;
  std::uint64_t turns_taken_ = 0;
  std::uint64_t turns_ended_ = 0;
  WaitQueue turn_changed_;
};

// All views above some nodes are drained while it lives, those that come meanwhile, too (D-1);
// end() or destruction lets them go on. Nests. A view may be detached meanwhile.
class DrainedSection {
 public:
  // Returns when no request is left inside.
  static asio::awaitable<DrainedSection> begin(Node& node);
  static asio::awaitable<DrainedSection> begin(std::vector<Node*> nodes);
  DrainedSection(DrainedSection&&) = default;
  DrainedSection& operator=(DrainedSection&&) = delete;
  ~DrainedSection() { end(); }
  void end();

  // Closes the views through which requests now reach a drained node and did not before.
  static void cover_new_views(const Graph& graph);

 private:
  DrainedSection() = default;
  std::shared_ptr<Quiet> quiet_;
};

// The views that a section holds closed.
struct Quiet {
  std::vector<std::shared_ptr<Gate>> gates;
  void cover(Node& node);
};

}  // namespace graph
