#include "graph/transaction.h"

#include <algorithm>
#include <functional>
#include <set>
#include <utility>

#include "graph/block_backend.h"
#include "graph/graph.h"

namespace graph {
namespace {

std::string user_of(const Edge& edge) {
  const std::string who = edge.parent() == nullptr ? "somebody" : edge.parent()->describe();
  return who + " (uses node '" + edge.node().name() + "' as '" + edge.name() + "' child)";
}

// P-1, in QEMU's words: tools parse them.
Result<> check_conflicts(const Node& node) {
  for (const Edge* taker : node.parents()) {
    for (const Edge* other : node.parents()) {
      const Permissions missing = taker->access().taken.without(other->access().shared);
      if (taker == other || missing.empty()) continue;
      return failure(Errc::busy, "Permission conflict on node '" + node.name() +
                                     "': permissions '" + missing.text() +
                                     "' are both required by " + user_of(*taker) +
                                     " and unshared by " + user_of(*other) + ".");
    }
  }
  return ok;
}

Result<> check_writable(const Node& node, Permissions taken) {
  if (node.common().read_only &&
      taken.has_any(Permission::write | Permission::write_unchanged)) {  // P-8
    return failure(Errc::read_only, node.name() + ": Block node is read-only");
  }
  const Limits& limits = node.limits();
  if (taken.has(Permission::write) && !taken.has(Permission::resize) &&
      !limits.unaligned_tail_writes && !is_aligned(node.size(), limits.request_alignment)) {  // P-9
    return failure(Errc::invalid_argument,
                   node.name() + ": Image size is not a multiple of request alignment: " +
                       std::to_string(node.size()) + ", " +
                       std::to_string(limits.request_alignment));
  }
  return ok;
}

bool reaches(const Node& from, const Node& target) {
  if (&from == &target) return true;
  return std::ranges::any_of(from.children(),
                             [&](const Edge* edge) { return reaches(edge->node(), target); });
}

// Does the holder of `edge` bear that what it holds is only `size` bytes long?
Result<> loses_bytes(const Edge& edge, std::uint64_t size) {
  if (edge.parent() == nullptr) return ok;
  if (const BlockBackend* view = edge.parent()->as_view()) return view->check_resize(size);
  const Node* parent = edge.parent()->as_node();
  return parent == nullptr ? ok : parent->check_child_resize(edge, size);
}

}  // namespace

std::vector<Node*> parents_first(const std::vector<Node*>& roots) {
  std::vector<Node*> finished;
  std::set<Node*> seen;
  const std::function<void(Node*)> visit = [&](Node* node) {
    if (!seen.insert(node).second) return;
    for (Edge* edge : node->children()) visit(&edge->node());
    finished.push_back(node);
  };
  for (Node* root : roots) visit(root);
  std::ranges::reverse(finished);
  return finished;
}

std::vector<BlockBackend*> views_above(Node& node) {
  std::vector<BlockBackend*> views;
  std::set<Node*> seen;
  const std::function<void(Node&)> visit = [&](Node& below) {
    if (!seen.insert(&below).second) return;
    for (Edge* edge : below.parents()) {
      if (edge->parent() == nullptr) continue;
      if (BlockBackend* view = edge->parent()->as_view()) views.push_back(view);
      if (Node* parent = edge->parent()->as_node()) visit(*parent);
    }
  };
  visit(node);
  return views;
}

void Transaction::set_access(Edge& edge, Access access) {
  changes_.push_back(Change{&edge, access, nullptr});
}
void Transaction::replace_child(Edge& edge, std::shared_ptr<Node> child) {
  changes_.push_back(Change{&edge, std::nullopt, std::move(child)});
}
void Transaction::refresh(Node& node) { refreshed_.push_back(&node); }

bool Transaction::sets_access(const Edge& edge) const {
  return std::ranges::any_of(
      changes_, [&](const Change& change) { return change.edge == &edge && change.access; });
}

std::vector<Node*> Transaction::affected() const {
  std::vector<Node*> nodes = refreshed_;
  for (const Change& change : changes_) {
    nodes.push_back(&change.edge->node());
    if (change.child) nodes.push_back(change.child.get());
    if (Node* parent = change.edge->parent() ? change.edge->parent()->as_node() : nullptr) {
      nodes.push_back(parent);
    }
  }
  for (const Undo& old : undo_) nodes.push_back(old.child.get());
  return nodes;
}

Result<> Transaction::apply_edges() {
  for (const Change& change : changes_) {
    undo_.push_back(Undo{change.edge, change.edge->access_, change.edge->child_});
    if (change.access) change.edge->access_ = *change.access;
    if (!change.child) continue;
    const Node* parent = change.edge->parent() ? change.edge->parent()->as_node() : nullptr;
    if (parent != nullptr && reaches(*change.child, *parent)) {  // G-1
      return failure(Errc::invalid_argument, "node '" + change.child->name() +
                                                 "' can't be a child of node '" + parent->name() +
                                                 "': it is above it");
    }
    if (change.child->size() < change.edge->size()) {
      const Result<> fits = loses_bytes(*change.edge, change.child->size());
      if (!fits) return fits;
    }
    change.edge->point_to(change.child);
  }
  return ok;
}

// Hands the rights of `node` on to its children.
Result<> Transaction::settle(Node& node) {
  if (Result<> agreed = check_conflicts(node); !agreed) return agreed;
  const Access own = node.cumulative_access();
  if (Result<> writable = check_writable(node, own.taken); !writable) return writable;
  for (Edge* edge : node.children()) {
    if (sets_access(*edge)) continue;
    const Access wanted = node.access_to(*edge, own);
    if (wanted == edge->access_) continue;
    undo_.push_back(Undo{edge, edge->access_, edge->child_});
    edge->access_ = wanted;
  }
  return ok;
}

void Transaction::undo() {
  for (auto old = undo_.rbegin(); old != undo_.rend(); ++old) {
    old->edge->access_ = old->access;
    if (old->edge->child_ != old->child) old->edge->point_to(old->child);
  }
  undo_.clear();
}

Result<> Transaction::apply() {
  if (Result<> applied = apply_edges(); !applied) return applied;
  const std::vector<Node*> order = parents_first(affected());
  for (auto node = order.rbegin(); node != order.rend(); ++node) {
    (*node)->refresh_limits();
    (*node)->refresh_size();
  }
  for (Node* node : order) {
    if (Result<> settled = settle(*node); !settled) return settled;
  }
  return ok;
}

Task<> Transaction::commit() {
  const Turn turn = co_await graph_.turn();
  co_return co_await commit(turn);
}

// P-13: what takes time comes first, on the old graph, with the views drained. From the first
// prepare on nothing waits.
Task<> Transaction::commit(const Turn&) {
  DrainedSection drained = co_await DrainedSection::begin(affected());
  Result<> done = ok;
  const std::vector<Difference> differences = try_out(done);
  std::vector<Node*> involved;  // those that hear how it ended
  for (const Difference& found : differences) {
    if (!done) break;
    involved.push_back(found.node);
    if (!found.lost.empty()) done = co_await found.node->before_lose(found.lost);
    if (done && !found.gained.empty()) done = co_await found.node->before_gain(found.gained);
  }
  if (done) done = apply();
  const std::vector<Node*> order = parents_first(affected());
  if (done) {
    for (Node* node : order) {
      done = node->prepare_access(node->cumulative_access());
      if (!done) break;
      if (std::ranges::find(involved, node) == involved.end()) involved.push_back(node);
    }
  }
  if (done) {
    for (Node* node : order) node->commit_access();
  } else {
    for (Node* node : involved) node->abort_access();
  }
  if (done) {
    undo_.clear();
  } else {
    undo();
  }
  graph_.refresh();
  DrainedSection::cover_new_views(graph_);
  co_return done;
}

// Makes the change and takes it back, to learn whether it is possible, and who gains and loses what
// by it.
std::vector<Transaction::Difference> Transaction::try_out(Result<>& done) {
  std::vector<std::pair<Node*, Permissions>> before;
  for (Node* node : parents_first(affected())) {
    before.emplace_back(node, node->cumulative_access().taken);
  }
  done = apply();
  std::vector<Difference> differences;
  for (const auto& [node, old] : before) {
    const Permissions taken = node->cumulative_access().taken;
    const Difference found{node, taken.without(old), old.without(taken)};
    if (done && !(found.gained.empty() && found.lost.empty())) differences.push_back(found);
  }
  undo();
  graph_.refresh();
  return differences;
}

}  // namespace graph
