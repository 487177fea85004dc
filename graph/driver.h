// driver.h - what a kind of node is called, which keys it has, and how one is opened. A driver is
// one .cpp file whose only export is its table; main lists the tables.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graph/base/options.h"
#include "graph/edge.h"

namespace graph {

class Graph;

// What a driver gets to open a node with.
class OpenContext final : public Parent {
 public:
  OpenContext(Graph& graph, std::string node_name, const Options& options, const Driver& driver,
              CommonOptions common);
  std::string describe() const override { return "node '" + node_name_ + "'"; }

  const std::string& node_name() const { return node_name_; }
  std::string_view driver_name() const { return driver_name_; }
  const OptionReader& options() const { return reader_; }
  const CommonOptions& common() const { return common_; }
  Home& home() const;

  // The child that `key` names, or describes: then it is opened, too. Good for reading while the
  // driver opens; the rights of its role come when the node is part of the graph. Errors:
  // invalid_argument (the key is missing, no such node), what opening it says; with the position.
  Task<Edge> attach(std::string_view key, Role role);
  // The same for a child that the image names rather than the options: `described` as a person
  // would, and held under `key`. It is only read, and inherits what an inline one would.
  Task<Edge> attach_described(std::string_view key, Role role, const Options& described);
  // More rights than to read, for what has to be done before the node is part of the graph.
  // Errors: busy (permissions), read_only.
  Task<> take(Edge& edge, Access access);
  // An edge to a node that is there already.
  Task<Edge> hold(std::string_view key, Role role, std::shared_ptr<Node> node);
  // `error` with the position of `key` in front.
  std::unexpected<Error> blame(std::string_view key, Error error) const;

 private:
  friend class Graph;
  CommonOptions inherited() const;
  Graph& graph_;
  std::string node_name_;
  std::string_view driver_name_;
  OptionReader reader_;
  CommonOptions common_;
  std::vector<std::shared_ptr<Node>> attached_;  // what it held, for when opening fails
};

struct Driver {
  std::string_view name;
  std::string_view help;  // one line
  std::span<const OptionSpec> options;
  // The context is gone when it returns.
  Task<std::unique_ptr<Node>> (*open)(OpenContext& context);
  bool is_filter = false;  // shows its child's content: nothing that an image could be
};

// The keys of every node, `driver` among them.
std::span<const OptionSpec> common_node_options();

// G-2: 1 to 31 of A-Z a-z 0-9 - . _, a letter first.
bool is_node_name(std::string_view name);

// What can be said of a node's description before anything is opened: its name ("" for an inline
// one), its driver, its keys, and those of inline children. Gives the driver. Errors:
// invalid_argument with the position.
Result<const Driver*> check_node(std::string_view name, const Options& options,
                                 std::span<const Driver* const> drivers);

}  // namespace graph
