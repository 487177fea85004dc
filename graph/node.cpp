#include "graph/node.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "graph/edge.h"

namespace graph {

Node::~Node() { assert(parents_.empty()); }

Edge* Node::child(std::string_view edge_name) const {
  for (Edge* edge : children_) {
    if (edge->name() == edge_name) return edge;
  }
  return nullptr;
}

bool Node::can_grow() const {
  if (growth() != Growth::as_child) return growth() == Growth::yes;
  return std::ranges::all_of(children_, [](const Edge* edge) {
    return edge->role() == Role::backing || edge->node().can_grow();
  });
}

Error Node::fault(Errc code, std::uint64_t offset, std::string what) const {
  return {code, name_, offset, name_ + ": " + std::move(what)};
}

namespace {
Error lacks(const Node& node, std::string_view what) {
  return {Errc::not_supported, node.name(), 0, node.name() + ": can't " + std::string(what)};
}
}  // namespace

Task<> Node::write(std::uint64_t, const ConstBuffers&, WriteFlags) {
  return failed(Error(Errc::read_only, name_, 0, name_ + ": can't be written"));
}
Task<> Node::write_zeroes(Range, ZeroFlags) { return failed(lacks(*this, "write zeroes")); }
Task<> Node::discard(Range) { return failed(lacks(*this, "discard")); }
Task<> Node::resize(std::uint64_t) { return failed(lacks(*this, "be resized")); }
Task<> Node::prefetch(Range) { return failed(lacks(*this, "prefetch")); }
Task<std::unique_ptr<Node>> Node::open_port(std::string wanted, Edge) {
  return failed<std::unique_ptr<Node>>(
      Error(Errc::invalid_argument, name_, 0, name_ + ": has no snapshot '" + wanted + "'"));
}
Task<Port> Node::take_snapshot(std::string) { return failed<Port>(lacks(*this, "take snapshots")); }
Task<Port> Node::delete_snapshot(std::string) {
  return failed<Port>(lacks(*this, "take snapshots"));
}
Task<> Node::apply_snapshot(std::string) { return failed(lacks(*this, "take snapshots")); }
Task<> Node::read_opaque(std::uint64_t, const Buffers&) { return failed(lacks(*this, "decode")); }

Task<Extents> Node::map(Range range, MapDepth) {
  Extents all;
  Extent extent;
  extent.length = range.length;
  extent.allocated = true;
  extent.kind = ExtentKind::opaque;
  all.list.push_back(extent);
  co_return std::move(all);
}

std::string Node::filename() const {
  const Edge* below = child("file") != nullptr ? child("file") : child("image");
  return below == nullptr ? "" : below->node().filename();
}

Task<std::uint64_t> Node::allocated_size() {
  std::vector<std::shared_ptr<Node>> below;
  for (const Edge* edge : children_) {
    if (edge->role() != Role::backing) below.push_back(edge->shared_node());
  }
  std::uint64_t sum = 0;
  for (const auto& node : below) {
    CO_TRY(const std::uint64_t bytes, co_await node->allocated_size());
    sum += bytes;
  }
  co_return sum;
}

Task<> Node::check_persistent_bitmap(const std::string&, std::uint64_t) {
  return failed(Error(Errc::not_supported, name_, 0,
                      "Can't store persistent bitmaps to " + name_ + ": Operation not supported"));
}

Task<> Node::forget_persistent_bitmap(const std::string&) { return succeeded(); }

Access Node::access_to(const Edge& child, Access own) const {
  return child_access(child.role(), own, common_.read_only ? Writable::no : Writable::yes);
}

asio::awaitable<void> Node::meet(DebugEvent) { co_return; }
Result<> Node::prepare_access(Access) { return ok; }
Task<> Node::before_gain(Permissions) { return succeeded(); }
Task<> Node::before_lose(Permissions) { return succeeded(); }

Result<> Node::check_child_resize(const Edge&, std::uint64_t size) const {
  return graph::check_resize(*this, size);
}

//
Limits Node::own_limits() const {
  Limits merged;
  merged.native_fua = merged.native_zeroes = !children_.empty();
  for (const Edge* edge : children_) {
    const Limits& child = edge->limits();
    merged.request_alignment = std::max(merged.request_alignment, child.request_alignment);
    merged.memory_alignment = std::max(merged.memory_alignment, child.memory_alignment);
    if (edge->role() == Role::backing) continue;  // only read
    merged.zero_alignment = std::max(merged.zero_alignment, child.zero_alignment);
    merged.discard_alignment = std::max(merged.discard_alignment, child.discard_alignment);
    merged.preferred = std::max(merged.preferred, child.preferred);
    merged.max_transfer = std::min(merged.max_transfer, child.max_transfer);
    merged.max_zeroes = std::min(merged.max_zeroes, child.max_zeroes);
    merged.max_discard = std::min(merged.max_discard, child.max_discard);
    merged.native_fua = merged.native_fua && child.native_fua;
    merged.native_zeroes = merged.native_zeroes && child.native_zeroes;
    merged.unaligned_tail_writes = merged.unaligned_tail_writes && child.unaligned_tail_writes;
  }
  return merged;
}

void Node::refresh_size() {
  const std::uint64_t now = own_size();
  const bool plain = needs_.takes_any_bytes() && needs_.max_transfer >= plain_length_max;
  plain_size_ = plain ? now : 0;
  if (now == size_) return;
  size_ = now;
  bitmaps_.resize(now);
  for (Edge* edge : parents_) {
    Node* parent = edge->parent() == nullptr ? nullptr : edge->parent()->as_node();
    if (parent != nullptr) parent->refresh_size();
  }
}

// Each maximum becomes a number of whole units, one at least: merged limits come from different
// children, and each of them still sees only what it can take.
void Node::refresh_limits() {
  Limits limits = own_limits();
  assert(is_power_of_two(limits.request_alignment) && is_power_of_two(limits.memory_alignment));
  assert(is_power_of_two(limits.zero_alignment) && is_power_of_two(limits.discard_alignment));
  assert(limits.memory_alignment <= Buffer::alignment);
  const auto in_units = [](std::uint64_t max, std::uint64_t unit) {
    return std::max(align_down(max, unit), unit);
  };
  limits.zero_alignment = std::max(limits.zero_alignment, limits.request_alignment);
  limits.discard_alignment = std::max(limits.discard_alignment, limits.request_alignment);
  limits.max_transfer = in_units(limits.max_transfer, limits.request_alignment);
  limits.max_zeroes = in_units(limits.max_zeroes, limits.zero_alignment);
  limits.max_discard = in_units(limits.max_discard, limits.discard_alignment);
  limits_ = needs_ = limits;
  if (passes_bytes_on() && own_limits() == Node::own_limits()) {
    needs_ = Limits{};
    needs_.native_fua = needs_.native_zeroes =
        true;  // the edge below falls back where the child can't
  }
  carries_events_ = wants_events();
  attention_ = static_cast<std::uint8_t>((attention_ & ~hears) | (carries_events_ ? hears : 0));
  for (const Edge* edge : children_) {
    if (is_filter() && edge->role() == Role::filtered && edge->is_watched()) carries_events_ = true;
  }
}

void Node::own(Edge& child) { child.adopt(this); }

Access Node::cumulative_access() const {
  Access all{Permissions::none(), Permissions::all()};
  for (const Edge* edge : parents_) {
    all.taken = all.taken | edge->access().taken;
    all.shared = all.shared & edge->access().shared;
  }
  return all;
}

Filter::Filter(Edge child) : file_(std::make_unique<Edge>(std::move(child))) { own(*file_); }
Filter::~Filter() = default;
std::uint64_t Filter::own_size() const { return file_->size(); }
Task<> Filter::read(std::uint64_t offset, const Buffers& out) { return file_->read(offset, out); }
Task<> Filter::write(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) {
  return file_->write(offset, data, flags);
}
Task<> Filter::write_zeroes(Range range, ZeroFlags flags) {
  return file_->write_zeroes(range, flags);
}
Task<> Filter::discard(Range range) { return file_->discard(range); }
Task<> Filter::resize(std::uint64_t size) { return file_->resize(size); }
Task<> Filter::prefetch(Range range) { return file_->prefetch(range); }
Task<Extents> Filter::map(Range range, MapDepth depth) { return file_->map(range, depth); }

Task<> Format::read(std::uint64_t offset, const Buffers& out) {
  return read_mapped(*this, offset, out);
}

// What happens in a format's file is the format's own business.
Result<> Format::check_child_resize(const Edge&, std::uint64_t) const { return ok; }

namespace {

Task<> read_extent(Node& node, const Extent& extent, std::uint64_t offset, const Buffers& part) {
  if (extent.kind == ExtentKind::opaque) co_return co_await node.read_opaque(offset, part);
  const bool stored = extent.kind == ExtentKind::data || extent.kind == ExtentKind::below;
  std::uint64_t there = 0;  // bytes that `via` has; behind its end, zeroes
  if (stored && extent.via != nullptr && extent.offset < extent.via->size()) {
    there = std::min<std::uint64_t>(part.size(), extent.via->size() - extent.offset);
  }
  const Buffers first = part.slice(0, there);
  const Buffers rest = part.slice(there, part.size() - there);
  fill_zero(rest);
  if (there == 0) co_return ok;
  const bool below = extent.kind == ExtentKind::below;
  Edge* listener = below ? node.child("file") : extent.via;  // as QEMU's formats tell it
  if (listener != nullptr && listener->is_watched()) {
    co_await listener->event(below ? DebugEvent::read_backing_aio : DebugEvent::read_aio);
  }
  Result<> done = co_await extent.via->read(extent.offset, first);
  if (done) co_return done;
  const std::uint64_t into =
      done.error().offset > extent.offset ? done.error().offset - extent.offset : 0;
  co_return std::unexpected(std::move(done).error().at(offset + into));
}

}  // namespace

Task<> read_mapped(Node& node, std::uint64_t offset, const Buffers& out) {
  for (std::uint64_t done = 0; done < out.size();) {
    const Range rest{offset + done, out.size() - done};
    CO_TRY(const Extents extents, co_await node.map(rest, MapDepth::allocation));
    for (const Extent& extent : extents.list) {
      const std::uint64_t n = std::min(extent.length, out.size() - done);
      const Buffers part = out.slice(done, n);
      CO_CHECK(co_await read_extent(node, extent, offset + done, part));
      done += n;
      if (done == out.size()) break;
    }
  }
  co_return ok;
}

}  // namespace graph
