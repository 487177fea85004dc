#include "graph/snapshot_change.h"

#include <utility>

namespace graph {
namespace {

Result<> check_writable(const Node& node) {
  if (!node.common().read_only) return ok;
  return std::unexpected(Error(Errc::read_only, node.name(), 0,
                               node.name() + ": is read-only, its snapshots can't be changed"));
}

}  // namespace

Task<Port> take_snapshot(Node& node, std::string name) {
  CO_CHECK(check_writable(node));
  if (name.empty()) {
    co_return std::unexpected(Error(Errc::invalid_argument, node.name(), 0,
                                    node.name() + ": the name of a snapshot is empty"));
  }
  const DrainedSection still = co_await DrainedSection::begin(node);
  co_return co_await node.take_snapshot(std::move(name));
}

Task<Port> delete_snapshot(Node& node, std::string wanted) {
  CO_CHECK(check_writable(node));
  const DrainedSection still = co_await DrainedSection::begin(node);
  co_return co_await node.delete_snapshot(std::move(wanted));
}

Task<> apply_snapshot(Node& node, std::string wanted) {
  CO_CHECK(check_writable(node));
  for (const BlockBackend* view : views_above(node)) {
    co_return std::unexpected(Error(
        Errc::busy, node.name(), 0,
        node.name() + ": is in use by " + view->describe() + ", which would see its disk change"));
  }
  Result<> applied = co_await node.apply_snapshot(std::move(wanted));
  node.bitmaps().mark({0, node.size()});  // B-1: no request has brought what is there now
  co_return applied;
}

}  // namespace graph
