// node.h - one box of the graph: what a driver implements. Only an Edge calls a node's data
// operations, so a driver may trust their arguments; see edge.h for what it sees to.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "graph/base/buffer.h"
#include "graph/base/bytes.h"
#include "graph/base/home.h"
#include "graph/base/task.h"
#include "graph/debug_event.h"
#include "graph/dirty_bitmaps.h"
#include "graph/extent.h"
#include "graph/flush.h"
#include "graph/permissions.h"
#include "graph/port.h"
#include "graph/request_tracker.h"

namespace graph {

class BlockBackend;
class Edge;
class Node;
struct Driver;
struct Quiet;

// May the node become larger when somebody writes past its end?
enum class Growth : std::uint8_t { never, yes, as_child };

// No node is made longer than this, so that sums and roundings of offsets fit into 64 bits.
inline constexpr std::uint64_t size_max = (std::uint64_t{1} << 63) - GiB;

// Longer requests than this always take the way through request_path.h.
inline constexpr std::uint64_t plain_length_max = 1 * GiB;

// What requests must look like when they reach the node, in bytes. Powers of two where they are
// alignments.
struct Limits {
  std::uint32_t request_alignment = 1;  // of offset and length; a request may also end at size()
  std::uint32_t memory_alignment = 1;   // of each buffer
  std::uint32_t zero_alignment = 1;     // below that, zeroes are written
  std::uint32_t discard_alignment = 1;  // pieces below that are passed down on their own
  std::uint32_t preferred = 4096;       // advice for clients
  std::uint64_t max_transfer = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t max_zeroes = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t max_discard = std::numeric_limits<std::uint64_t>::max();
  bool native_fua = false;     // write and write_zeroes honour `fua` themselves
  bool native_zeroes = false;  // write_zeroes does better than writing them
  // Without it, an end that is no multiple of request_alignment is written only for who may resize
  // (P-9).
  bool unaligned_tail_writes = true;

  bool operator==(const Limits&) const = default;
  bool takes_any_bytes() const { return (request_alignment | memory_alignment) == 1; }
};

struct WriteFlags {
  bool fua = false;         // durable when it returns
  bool compressed = false;  // advice for formats that can; whole clusters only
};
struct ZeroFlags {
  bool fua = false;
  bool may_unmap = false;  // the space may be given back
  bool no_fallback =
      false;  // fails with not_supported rather than write zeroes, before anything is changed
  bool place_only = false;  // without may_unmap: advice for formats to give the range its place,
                            // and not to reserve space below
};

enum class DiscardMode : std::uint8_t { ignore, unmap };
enum class DetectZeroes : std::uint8_t { off, on, unmap };

// The keys that every driver has.
struct CommonOptions {
  bool read_only = false;       // for good, whatever the next says
  bool auto_read_only = false;  // opened read-only, and again for writing while somebody writes
  bool force_share = false;     // takes no locks; needs read_only
  bool no_flush = false;        // F-4: never waits for the medium
  bool direct = false;          // as it was asked for; files read it from their options
  unsigned layers_above = 0;    // in a chain of backing files that images name
  DiscardMode discard = DiscardMode::unmap;
  DetectZeroes detect_zeroes = DetectZeroes::off;
};

// Who holds an edge: a node or a view.
class Parent {
 public:
  virtual ~Parent() = default;
  // For messages: "node 'disk'", "export 'boot'".
  virtual std::string describe() const = 0;
  virtual Node* as_node() { return nullptr; }
  virtual BlockBackend* as_view() { return nullptr; }
};

class Node : public Parent {
 public:
  ~Node() override;
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  const std::string& name() const { return name_; }
  const Driver& driver() const { return *driver_; }
  const CommonOptions& common() const { return common_; }
  Home& home() const { return *home_; }
  const std::vector<Edge*>& children() const { return children_; }
  const std::vector<Edge*>& parents() const { return parents_; }
  Edge* child(std::string_view edge_name) const;
  std::string describe() const override { return "node '" + name_ + "'"; }
  Node* as_node() override { return this; }

  // Size of the content, in bytes; any number. A copy of own_size(), so that a long chain of nodes
  // costs nothing.
  std::uint64_t size() const { return size_; }
  // The size as the driver has it now.
  virtual std::uint64_t own_size() const = 0;
  // To be called when own_size() has changed: this node and those that show its content say so from
  // now on.
  void refresh_size();
  virtual Growth growth() const = 0;
  // growth() with as_child resolved.
  bool can_grow() const;
  virtual bool is_filter() const { return false; }
  // Merged with the children's, for who asks what is good for requests; cached, see
  // refresh_limits().
  const Limits& limits() const { return limits_; }
  // What requests that reach this very node have to look like. Where bytes are passed on as they
  // are, that is anything: padding is left to the edge below. So all who write to one medium are
  // kept apart in one place, whatever nodes they come through.
  const Limits& needs() const { return needs_; }
  // Each request becomes the same request to the one child, at another offset at most.
  virtual bool passes_bytes_on() const { return false; }
  // What a front-end may say of the node beside its driver, for `gantry graph`.
  virtual std::string detail() const { return ""; }
  // The file that the content comes from; default: that of the child "file" or "image". "" where
  // there is none.
  virtual std::string filename() const;
  // Bytes of the medium in use; default: of all children but the backing one.
  virtual Task<std::uint64_t> allocated_size();

  // Data operations. Requires (map and prefetch take any range): aligned as limits() says, no
  // longer than max_transfer, buffers.size() bytes, and inside size() but for a write through an
  // edge that may resize. An error carries the offset of the first byte that failed, in bytes of
  // this node.
  virtual Task<> read(std::uint64_t offset, const Buffers& out) = 0;
  virtual Task<> write(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags);
  // Errors: not_supported, having changed nothing: then zeroes are written instead, unless
  // no_fallback.
  virtual Task<> write_zeroes(Range range, ZeroFlags flags);
  // Advice: afterwards the content of the range is undefined, outside of it unchanged (Z-3).
  virtual Task<> discard(Range range);
  // Step 1 of F-2: what this node keeps in memory goes to its children.
  virtual Task<> flush_to_children() { return succeeded(); }
  // Step 2: what the medium of this very node keeps becomes durable. A node without one has nothing
  // to do.
  virtual Task<> flush_to_disk() { return succeeded(); }
  // What flush_to_children() gave to the children is durable now (or will never be, with no_flush).
  virtual void flush_done() {}
  // Cuts or grows to exactly `size` bytes; what is new reads as zeroes.
  virtual Task<> resize(std::uint64_t size);
  // What stores the bytes may have become longer by itself, as block devices do: looks, and
  // believes what it sees as far as no view loses bytes. Called before a view is attached.
  virtual Task<> reread_size() { return succeeded(); }
  // Brings the range nearer. Errors: not_supported: then it is read instead.
  virtual Task<> prefetch(Range range);
  // Where the bytes of `range` live, see extent.h.
  virtual Task<Extents> map(Range range, MapDepth depth);
  // Reads what map() called opaque.
  virtual Task<> read_opaque(std::uint64_t offset, const Buffers& out);

  // Can its content be kept as a snapshot?
  virtual bool has_snapshots() const { return false; }
  // Contents that can be looked at beside the active one.
  virtual std::vector<Port> ports() const { return {}; }
  // A node that shows one of them, by id or else by name, as long as it lives; `self` leads to this
  // node. Errors: invalid_argument when there is no such port.
  virtual Task<std::unique_ptr<Node>> open_port(std::string wanted, Edge self);
  // Changes of them, see snapshot_change.h, which is the way to ask. Requires: nobody is inside,
  // and the node may be written. Errors: not_supported; invalid_argument (no such snapshot), busy
  // (in use; the message says by whom), the driver's.
  virtual Task<Port> take_snapshot(std::string name);
  virtual Task<Port> delete_snapshot(std::string wanted);
  virtual Task<> apply_snapshot(std::string wanted);

  // Control operations.
  // What this node does to `child` when it is used as `own` says. Default: child_access() by role.
  virtual Access access_to(const Edge& child, Access own) const;
  // The node's users now need `own`. All nodes of a change prepare before one commits; nothing
  // waits in between. Errors: as the node finds; prepare then has changed nothing.
  virtual Result<> prepare_access(Access own);
  virtual void commit_access() {}
  // The change does not happen. Also called when only before_gain or before_lose had run.
  virtual void abort_access() {}
  // What takes time before a change in which the node gains or loses rights; views above are
  // drained, and the change may still be given up (P-13).
  virtual Task<> before_gain(Permissions gained);
  virtual Task<> before_lose(Permissions lost);
  // May the child become `size` bytes long? The refusal names the view that would lose bytes.
  virtual Result<> check_child_resize(const Edge& child, std::uint64_t size) const;
  // To another worker: leave_worker() on the old one, with nothing in flight, then enter_worker()
  // on the new one, when home() is its own already. For drivers that hold what belongs to a worker.
  virtual void leave_worker() {}
  virtual void enter_worker() {}
  // A node that was closed is not used again. Errors do not keep it open: they tell what may be
  // lost.
  virtual Task<> close() { return succeeded(); }
  // The limits of this node over its children's.
  virtual Limits own_limits() const;
  void refresh_limits();

  // Which bytes were written, see dirty_bitmaps.h. What changes the list while there are requests
  // is in bitmap_change.h.
  DirtyBitmaps& bitmaps() { return bitmaps_; }
  const DirtyBitmaps& bitmaps() const { return bitmaps_; }
  // Persistent bitmaps: all that a driver has to do with them.
  // 1. It adds those that the image holds to bitmaps() before its open function returns, or, where
  //    it opens the image again for writing, in commit_access().
  // 2. It is asked before a new one is added, or an old one made persistent; it may write nothing
  //    yet. And told before one is removed: then it takes what the image holds of it away, which
  //    is nothing for one that was never stored.
  // 3. In close() it stores all in bitmaps() that are persistent and not inconsistent.
  // Errors: not_supported where nothing can be stored; else why not, for whoever asked.
  virtual Task<> check_persistent_bitmap(const std::string& bitmap, std::uint64_t granularity);
  virtual Task<> forget_persistent_bitmap(const std::string& bitmap);
  // Of a new bitmap where nobody says: bytes, a power of two.
  virtual std::uint64_t bitmap_granularity() const { return 64 * KiB; }

  RequestTracker& tracker() { return tracker_; }
  FlushQueue& flushes() { return flushes_; }
  Access cumulative_access() const;  // P-2: over all parents

  // Fault injection. Asked for only where somebody listens, so that it costs a test of a flag
  // elsewhere.
  virtual bool wants_events() const { return false; }
  bool hears_events() const { return (attention_ & hears) != 0; }  // wants_events(), at hand
  // A request has come to this point; it goes on when the task ends.
  virtual asio::awaitable<void> meet(DebugEvent event);

  // Writes through an edge without `resize` that ended past size(): somebody's bug (P-10).
  std::uint64_t refused_growth = 0;

 protected:
  Node() = default;
  // Lists `child` among this node's children; drivers call it once for each edge, when built.
  void own(Edge& child);
  // For drivers whose failure is known only here: "disk0: file: ...".
  Error fault(Errc code, std::uint64_t offset, std::string what) const;

 private:
  friend class DrainedSection;
  friend class Graph;
  friend class Edge;
  friend class Transaction;
  std::string name_;
  const Driver* driver_ = nullptr;
  CommonOptions common_;
  Home* home_ = nullptr;
  std::vector<Edge*>
      children_;  // members of the driver, which it may move: an Edge keeps this list right
  std::vector<Edge*> parents_;
  std::uint64_t size_ = 0;
  std::uint64_t plain_size_ =
      0;  // size_ where any request up to plain_length_max goes as it is, else 0
  Limits limits_;
  Limits needs_;
  RequestTracker tracker_;
  FlushQueue flushes_;
  std::vector<std::weak_ptr<Quiet>> quiets_;  // the drained sections that it is in
  bool warned_of_growth_ = false;
  bool carries_events_ = false;  // this node or one that it filters hears them
  // Why a write must not go straight to the driver; one byte, so that this is one test.
  enum Attention : std::uint8_t { hears = 1, records = 2 };
  std::uint8_t attention_ = 0;
  DirtyBitmaps bitmaps_{attention_, records};
};

// What stores bytes elsewhere than in other nodes.
class Protocol : public Node {};

// Shows its one child's content, changed or not; override what differs. Growth, size, flags are the
// child's.
class Filter : public Node {
 public:
  explicit Filter(Edge child);
  ~Filter() override;
  Edge& file() { return *file_; }
  const Edge& file() const { return *file_; }
  bool is_filter() const override { return true; }
  // But for a filter that asks for more than its child; see refresh_limits().
  bool passes_bytes_on() const override { return true; }
  std::uint64_t own_size() const override;
  Growth growth() const override { return Growth::as_child; }
  Task<> read(std::uint64_t offset, const Buffers& out) override;
  Task<> write(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) override;
  Task<> write_zeroes(Range range, ZeroFlags flags) override;
  Task<> discard(Range range) override;
  Task<> resize(std::uint64_t size) override;
  Task<> prefetch(Range range) override;
  Task<Extents> map(Range range, MapDepth depth) override;

 private:
  std::unique_ptr<Edge> file_;
};

// A layout of its own in its children. Says where bytes live by map(); reading follows from it.
class Format : public Node {
 public:
  Task<> read(std::uint64_t offset, const Buffers& out) override;
  Result<> check_child_resize(const Edge& child, std::uint64_t size) const override;
};

// Reads `out.size()` bytes at `offset` of `node` from where its map() says that they are.
Task<> read_mapped(Node& node, std::uint64_t offset, const Buffers& out);

}  // namespace graph
