#include "graph/flush.h"

#include <algorithm>
#include <utility>

#include "graph/edge.h"
#include "graph/node.h"

namespace graph {

Task<> FlushQueue::flush(Node& node, FlushDepth depth) {
  if (!next_) next_ = std::make_shared<Batch>();
  const std::shared_ptr<Batch> mine = next_;
  if (depth == FlushDepth::disk) mine->depth = depth;
  while (!mine->done) {
    if (running_) {
      co_await finished_.wait();
      continue;
    }
    running_ = true;
    next_.reset();
    mine->result = co_await flush_node(node, mine->depth);
    mine->done = true;
    running_ = false;
    finished_.notify_all();
  }
  co_return mine->result;
}

namespace {

bool is_written_and_watched(const Edge* child) {
  return child->may(Permission::write) && child->is_watched();
}

asio::awaitable<void> tell_children(Node& node, DebugEvent event) {
  const std::vector<Edge*> children = node.children();
  for (Edge* child : children) {
    if (is_written_and_watched(child)) co_await child->event(event);
  }
}

}  // namespace

Task<> flush_node(Node& node, FlushDepth depth) {
  const bool watched = std::ranges::any_of(node.children(), is_written_and_watched);
  if (watched) co_await tell_children(node, DebugEvent::flush_to_os);
  CO_CHECK(co_await node.flush_to_children());
  if (node.common().no_flush) depth = FlushDepth::children;
  if (depth == FlushDepth::disk) {
    if (watched) co_await tell_children(node, DebugEvent::flush_to_disk);
    CO_CHECK(co_await node.flush_to_disk());
  }
  Result<> first = ok;
  const std::vector<Edge*> children = node.children();
  for (Edge* child : children) {
    if (!child->access().taken.has_any(Permission::write | Permission::write_unchanged)) continue;
    Result<> flushed = co_await child->node().flushes().flush(child->node(), depth);
    if (!flushed && first) first = std::move(flushed);
  }
  if (first) node.flush_done();
  co_return first;
}

}  // namespace graph
