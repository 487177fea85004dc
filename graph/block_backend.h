// block_backend.h - a user's view of a node, and the border of the graph: the view owns the range.
// A request enters through here or not at all; what lies outside [0, size()), what the view may not
// do, and what comes while the graph is drained is dealt with before any node sees it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "graph/base/gate.h"
#include "graph/block_status.h"
#include "graph/edge.h"

namespace graph {

// Whose business the end of the node is.
enum class RangePolicy : std::uint8_t {
  fixed,     // the size is what it was at attach: exports
  growable,  // the size is the node's, and writes may move it: internal users, with the permission
             // `resize`
};

struct ViewOptions {
  std::string user;  // for messages: "export 'disk'"
  RangePolicy policy = RangePolicy::fixed;
  Access access{Permission::consistent_read, Permissions::all()};
  std::string port;             // "": the active content; else a snapshot, by id or else by name
  std::optional<Range> window;  // bytes of the node; fixed views only. Default: all of it
  bool write_through = false;   // each write is durable when it returns
  bool queue_while_drained =
      true;  // false: the user knows when it is drained and asks nothing then (D-2)
  explicit ViewOptions(std::string who) : user(std::move(who)) {}
};

class BlockBackend final : public Parent {
 public:
  ~BlockBackend() override;

  std::uint64_t size() const;  // bytes
  bool writable() const { return edge_.may(Permission::write); }
  Node& node() const { return edge_.node(); }
  const Edge& edge() const { return edge_; }
  const Range* window() const { return window_ ? &*window_ : nullptr; }
  std::string describe() const override { return options_.user; }
  BlockBackend* as_view() override { return this; }

  // Alignment that requests need so that no byte outside of them is read or written, in bytes: the
  // node's, or less where the window or the size is no multiple of it. Nothing breaks below: the
  // layer pads.
  std::uint32_t alignment() const;

  // All of these: Errors: out_of_range; read_only for what writes; else the node's. Offsets count
  // from the view's first byte, in errors, too. They wait while the view is drained; shutting_down
  // when it is detached meanwhile. Length 0 is legal and does nothing. Lifetime: buffers and lists
  // outlive the task.
  Task<> read(std::uint64_t offset, const Buffers& out);
  Task<> write(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags = {});
  Task<> write_zeroes(Range range, ZeroFlags flags = {});
  Task<> discard(Range range, WriteFlags flags = {});
  Task<> flush();
  Task<> prefetch(Range range);
  // Extents from range.offset on, at least one, at most `extents_max`; see block_status.h.
  // Requires: the range is not empty.
  Task<StatusExtents> block_status(Range range, MapDepth depth, std::size_t extents_max);
  // Growable views only. Errors: permission_denied, busy (another view would lose bytes), the
  // node's.
  Task<> resize(std::uint64_t size);

  // The border's first question, for a front-end that wants to answer before it does any work.
  enum class Intent : std::uint8_t { read, write };
  Result<> check(Intent intent, Range range) const;

  // No request is inside once this returns, and none enters before undrain(). Nests.
  asio::awaitable<void> drain();
  void undrain() { gate_->open(); }
  bool drained() const { return gate_->closed(); }
  std::size_t in_flight() const { return gate_->inside(); }

  // Would the view lose bytes if its node were `size` bytes long?
  Result<> check_resize(std::uint64_t size) const;

 private:
  friend class DrainedSection;
  friend class Graph;
  friend struct Quiet;
  friend class Transaction;
  BlockBackend(Edge edge, ViewOptions options);
  Task<Gate::Pass> enter(Intent intent, Range range);
  std::uint64_t start() const { return window_ ? window_->offset : 0; }
  // An error of the node in the view's own offsets.
  Result<> seen_from_here(Result<> done) const;

  Edge edge_;
  ViewOptions options_;
  std::optional<Range> window_;  // of a fixed view
  // Outlives the view where somebody waits for it, or holds it closed.
  std::shared_ptr<Gate> gate_ = std::make_shared<Gate>();
};

}  // namespace graph
