// edge.h - a parent's typed hold on a child, and the only way to its data. The generic request path
// (request_path.cpp) is behind it: what the caller asks in bytes reaches the node as its limits()
// want it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "graph/node.h"

namespace graph {

class Graph;
class OpenContext;

// Keeps its child alive; lets go when destroyed. Movable: the child's list of parents follows.
class Edge {
 public:
  Edge() = default;
  // Holds `child` without any right yet: a Transaction gives them.
  Edge(std::string name, Role role, std::shared_ptr<Node> child);
  Edge(Edge&& other) noexcept;
  Edge& operator=(Edge&& other) noexcept;
  ~Edge();

  explicit operator bool() const { return child_ != nullptr; }
  const std::string& name() const { return name_; }
  Role role() const { return role_; }
  Node& node() const { return *child_; }
  const std::shared_ptr<Node>& shared_node() const { return child_; }
  Parent* parent() const { return parent_; }
  const Access& access() const { return access_; }
  bool may(Permission permission) const { return access_.taken.has(permission); }
  std::uint64_t size() const { return child_->size(); }
  const Limits& limits() const { return child_->limits(); }

  // Data, at any alignment and length. Nothing that the caller passes is believed:
  // Errors: out_of_range outside the child's size (a write needs `resize` for that);
  // permission_denied when the edge did not take what the operation needs; else the node's, offset
  // in bytes of the child. Lifetime: buffers and lists outlive the task. A pass-through costs one
  // call: no coroutine.
  Task<> read(std::uint64_t offset, const Buffers& out) {
    const std::uint64_t plain = child_->plain_size_;
    if (offset < plain && !out.empty() &&
        out.size() <= std::min(plain - offset, plain_length_max) &&
        may(Permission::consistent_read)) [[likely]] {
      return child_->read(offset, out);
    }
    return read_checked(offset, out);
  }
  Task<> write(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags = {});
  Task<> write_zeroes(Range range, ZeroFlags flags = {});
  Task<> discard(Range range);
  // Durable: all that was written before, here and below (F-1 to F-4).
  Task<> flush();
  // Errors: busy when a fixed view would lose bytes; not_supported, no_space when the child can't
  // grow.
  Task<> resize(std::uint64_t size);
  Task<> prefetch(Range range);
  Task<Extents> map(Range range, MapDepth depth = MapDepth::zeroes);

  // Does anybody hear of events()? Filters between hand them on.
  bool is_watched() const { return child_->carries_events_; }
  // The parent's driver has come to this point of what it does with the child. Where every
  // nanosecond counts, ask is_watched() first.
  asio::awaitable<void> event(DebugEvent event);

 private:
  friend class Graph;
  friend class Node;
  friend class OpenContext;
  friend class Transaction;
  Task<> read_checked(std::uint64_t offset, const Buffers& out);
  void link();
  void unlink();
  void adopt(Parent* parent);  // lists the edge among a parent node's children
  void point_to(std::shared_ptr<Node> child);
  Result<> admit(Permission needed, Range range) const;

  std::string name_;
  Role role_ = Role::filtered;
  Access access_;
  std::shared_ptr<Node> child_;
  Parent* parent_ = nullptr;
};

// May `node` become `size` bytes long, as far as its users are concerned?
// Errors: busy, naming the view.
Result<> check_resize(const Node& node, std::uint64_t size);

}  // namespace graph
