#include "graph/edge.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "graph/block_backend.h"
#include "graph/request_path.h"

namespace graph {

Edge::Edge(std::string name, Role role, std::shared_ptr<Node> child)
    : name_(std::move(name)), role_(role), child_(std::move(child)) {
  link();
}

Edge::Edge(Edge&& other) noexcept { *this = std::move(other); }

Edge& Edge::operator=(Edge&& other) noexcept {
  if (this == &other) return *this;
  unlink();
  adopt(nullptr);
  name_ = std::move(other.name_);
  role_ = other.role_;
  access_ = other.access_;
  Parent* parent = other.parent_;
  other.unlink();
  other.adopt(nullptr);
  child_ = std::move(other.child_);
  link();
  adopt(parent);
  return *this;
}

Edge::~Edge() {
  unlink();
  adopt(nullptr);
}

void Edge::link() {
  if (child_) child_->parents_.push_back(this);
}

void Edge::unlink() {
  if (child_) std::erase(child_->parents_, this);
}

void Edge::adopt(Parent* parent) {
  if (Node* node = parent_ == nullptr ? nullptr : parent_->as_node()) {
    std::erase(node->children_, this);
  }
  parent_ = parent;
  if (Node* node = parent_ == nullptr ? nullptr : parent_->as_node()) {
    node->children_.push_back(this);
  }
}

void Edge::point_to(std::shared_ptr<Node> child) {
  unlink();
  child_ = std::move(child);
  link();
}

// The backup of the border's check: what fails here is a bug of the caller, and still only an error
// (P-10).
Result<> Edge::admit(Permission needed, Range range) const {
  if (!access_.taken.has(needed)) {
    return failure(Errc::permission_denied, child_->name() + ": used without the permission '" +
                                                Permissions(needed).text() + "'");
  }
  if (range.lies_within(child_->size())) return ok;
  if (needed == Permission::write && access_.taken.has(Permission::resize) &&
      range.lies_within(size_max)) {
    return ok;
  }
  if (needed == Permission::write) ++child_->refused_growth;
  return std::unexpected(Error(Errc::out_of_range, child_->name(), range.offset,
                               child_->name() + ": " + std::to_string(range.length) + " bytes at " +
                                   std::to_string(range.offset) + " leave its size of " +
                                   std::to_string(child_->size())));
}

Task<> Edge::read_checked(std::uint64_t offset, const Buffers& out) {
  if (!Range{offset, out.size()}.lies_within(child_->size()) || !may(Permission::consistent_read))
      [[unlikely]] {
    return failed(admit(Permission::consistent_read, {offset, out.size()}).error());
  }
  const Limits& limits = child_->needs();
  if (out.empty()) [[unlikely]]
    return succeeded();
  if (limits.takes_any_bytes() && out.size() <= limits.max_transfer) {
    return child_->read(offset, out);
  }
  return request_path::read(*child_, offset, out);
}

Task<> Edge::write(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) {
  if (!Range{offset, data.size()}.lies_within(child_->size()) || !may(Permission::write))
      [[unlikely]] {
    if (Result<> admitted = admit(Permission::write, {offset, data.size()}); !admitted) {
      return failed(std::move(admitted).error());
    }
  }
  const Limits& limits = child_->needs();
  const CommonOptions& common = child_->common();
  if (data.empty()) [[unlikely]]
    return succeeded();
  if (limits.takes_any_bytes() && data.size() <= limits.max_transfer &&
      common.detect_zeroes == DetectZeroes::off && child_->attention_ == 0 &&
      (!flags.fua || (limits.native_fua && !common.no_flush))) {
    return child_->write(offset, data, flags);
  }
  return request_path::write(*child_, offset, data, flags);
}

Task<> Edge::write_zeroes(Range range, ZeroFlags flags) {
  if (Result<> admitted = admit(Permission::write, range); !admitted) {
    return failed(std::move(admitted).error());
  }
  return request_path::write_zeroes(*child_, range, flags);
}

Task<> Edge::discard(Range range) {
  if (Result<> admitted = admit(Permission::write, range); !admitted) {
    return failed(std::move(admitted).error());
  }
  if (!range.lies_within(child_->size())) {  // allowed to grow, but a discard never does (Z-3)
    const std::uint64_t size = child_->size();
    range = range.offset >= size ? Range{size, 0} : Range{range.offset, size - range.offset};
  }
  return request_path::discard(*child_, range);
}

Task<> Edge::flush() { return child_->flushes().flush(*child_, FlushDepth::disk); }

Task<> Edge::resize(std::uint64_t size) {
  if (!may(Permission::resize)) {
    return failed(Error(Errc::permission_denied,
                        child_->name() + ": resized without the permission 'resize'"));
  }
  if (size > size_max) {
    return failed(Error(Errc::out_of_range, child_->name(), size_max,
                        child_->name() + ": can't be " + std::to_string(size) + " bytes long"));
  }
  return request_path::resize(*child_, size);
}

Task<> Edge::prefetch(Range range) {
  if (Result<> admitted = admit(Permission::consistent_read, range); !admitted) {
    return failed(std::move(admitted).error());
  }
  return child_->prefetch(range);
}

asio::awaitable<void> Edge::event(DebugEvent event) {
  const std::shared_ptr<Node> listener = child_;
  if (!listener->carries_events_) co_return;
  if (listener->hears_events()) co_await listener->meet(event);
  if (!listener->is_filter()) co_return;
  for (Edge* below : listener->children()) {
    if (below->role() == Role::filtered) co_return co_await below->event(event);
  }
}

// S-1: something, nothing beyond the range, whole units but at the end of the node.
Task<Extents> Edge::map(Range range, MapDepth depth) {
  CO_CHECK(admit(Permission::consistent_read, range));
  assert(!range.empty());
  CO_TRY(Extents extents, co_await child_->map(range, depth));
  assert(!extents.list.empty());
  std::uint64_t covered = 0;
  for (std::size_t i = 0; i < extents.list.size(); ++i) {
    Extent& extent = extents.list[i];
    assert(extent.length > 0);
    extent.length = std::min(extent.length, range.length - covered);
    covered += extent.length;
    if (extent.via == nullptr && extent.kind == ExtentKind::data) extent.via = this;
    if (covered == range.length) extents.list.resize(i + 1);
  }
  co_return std::move(extents);
}

Result<> check_resize(const Node& node, std::uint64_t size) {
  for (const Edge* edge : node.parents()) {
    if (edge->parent() == nullptr) continue;
    if (const BlockBackend* view = edge->parent()->as_view()) {
      if (Result<> allowed = view->check_resize(size); !allowed) return allowed;
    } else if (const Node* parent = edge->parent()->as_node()) {
      if (Result<> allowed = parent->check_child_resize(*edge, size); !allowed) return allowed;
    }
  }
  return ok;
}

}  // namespace graph
