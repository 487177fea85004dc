// transaction.h - a change of edges and rights, made whole or not at all (P-13, G-3). The views
// above everything that changes are drained meanwhile: no request sees half of it.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "graph/edge.h"

namespace graph {

class Graph;
class Turn;

class Transaction {
 public:
  explicit Transaction(Graph& graph) : graph_(graph) {}

  // `edge`, a view's or one of a node that is being opened or closed, takes and shares what
  // `access` says.
  void set_access(Edge& edge, Access access);
  // `edge` leads to `child` from now on.
  void replace_child(Edge& edge, std::shared_ptr<Node> child);
  // The rights that `node` needs on its children are worked out again.
  void refresh(Node& node);

  // Errors: busy (P-1, names both users; a view that would lose bytes), read_only (P-8),
  // invalid_argument (P-9, a cycle), what a node refuses; then nothing has changed. Waits for its
  // turn: the changes of a graph are made one after the other.
  Task<> commit();
  // The same within the caller's turn.
  Task<> commit(const Turn& turn);

 private:
  struct Change {
    Edge* edge;
    std::optional<Access> access;
    std::shared_ptr<Node> child;  // null: the same
  };
  struct Undo {
    Edge* edge;
    Access access;
    std::shared_ptr<Node> child;
  };
  bool sets_access(const Edge& edge) const;
  std::vector<Node*> affected() const;
  struct Difference {
    Node* node;
    Permissions gained, lost;
  };
  std::vector<Difference> try_out(Result<>& done);
  Result<> apply();
  Result<> apply_edges();
  Result<> settle(Node& node);
  void undo();

  Graph& graph_;
  std::vector<Change> changes_;
  std::vector<Node*> refreshed_;
  std::vector<Undo> undo_;
};

// The nodes that can be reached from `roots`, parents before children.
std::vector<Node*> parents_first(const std::vector<Node*>& roots);
// The views through which requests reach `node`.
std::vector<BlockBackend*> views_above(Node& node);

}  // namespace graph
