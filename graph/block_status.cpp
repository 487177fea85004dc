#include "graph/block_status.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace graph {
namespace {

constexpr std::uint32_t own_layer = 1;

// The answer so far: neighbours differ, and nothing is empty.
class Answer {
 public:
  explicit Answer(std::size_t extents_max) : extents_max_(extents_max) {}

  void append(const StatusExtent& extent) {
    if (extent.length == 0) return;
    covered_ += extent.length;
    if (!list_.empty() && list_.back().same_status(extent)) {
      list_.back().length += extent.length;
    } else {
      list_.push_back(extent);
    }
  }
  std::uint64_t covered() const { return covered_; }
  // One extent more than asked for says that the last one asked for is complete.
  bool enough() const { return list_.size() > extents_max_; }
  std::size_t extents_max() const { return extents_max_; }
  const StatusExtents& list() const { return list_; }
  StatusExtents take() {
    if (enough()) list_.resize(extents_max_);
    return std::move(list_);
  }

 private:
  std::size_t extents_max_;
  StatusExtents list_;
  std::uint64_t covered_ = 0;
};

// Each of these may cover only the beginning of `extent`: then the caller asks again from there.

// S-6: stored data may still be a hole of the file that stores it.
Task<> append_stored(Answer& answer, const Extent& extent, MapDepth depth) {
  StatusExtent status;
  status.length = extent.length;
  if (depth != MapDepth::zeroes || extent.settled || extent.via == nullptr) {
    answer.append(status);
    co_return ok;
  }
  const std::uint64_t child_size = extent.via->size();
  if (extent.offset >= child_size) {  // the end of the file inside of the extent reads as zeroes
    status.zero = true;
    answer.append(status);
    co_return ok;
  }
  const Range stored{extent.offset, std::min(extent.length, child_size - extent.offset)};
  CO_TRY(const StatusExtents below,
         co_await block_status(*extent.via, stored, depth, answer.extents_max()));
  for (const StatusExtent& part : below) {
    status.length = part.length;
    status.zero = part.zero;
    answer.append(status);
  }
  co_return ok;
}

// B-1: beyond the end of a short layer its zeroes count as its own.
Task<> append_below(Answer& answer, const Extent& extent, MapDepth depth) {
  StatusExtent status;
  status.length = extent.length;
  status.data = false;
  status.zero = true;
  if (extent.via == nullptr) {
    status.depth = 0;
    answer.append(status);
    co_return ok;
  }
  const std::uint64_t size = extent.via->size();
  if (extent.offset >= size) {
    status.depth = own_layer + 1;
    answer.append(status);
    co_return ok;
  }
  const Range there{extent.offset, std::min(extent.length, size - extent.offset)};
  CO_TRY(const StatusExtents below,
         co_await block_status(*extent.via, there, depth, answer.extents_max()));
  for (StatusExtent part : below) {
    if (part.depth > 0) part.depth += own_layer;
    answer.append(part);
  }
  co_return ok;
}

Task<> append_extent(Answer& answer, const Extent& extent, MapDepth depth) {
  if (extent.kind == ExtentKind::below) return append_below(answer, extent, depth);
  if (extent.kind == ExtentKind::data) return append_stored(answer, extent, depth);
  const bool opaque = extent.kind == ExtentKind::opaque;
  StatusExtent status;
  status.length = extent.length;
  status.zero = !opaque;
  status.data = opaque || extent.provisioned;
  status.depth = extent.allocated || opaque ? own_layer : 0;
  answer.append(status);
  return succeeded();
}

// Makes each boundary a multiple of `unit` from the node's start: a unit with two answers counts as
// data.
void append_in_whole_units(Answer& answer, const StatusExtents& list, Range range,
                           std::uint64_t unit, std::uint64_t node_size) {
  std::uint64_t at = range.offset;  // end of what `answer` covers
  std::uint64_t end = range.offset;
  for (const auto& extent : list) {
    end += extent.length;
    const bool whole = is_aligned(end, unit) || end == node_size || end == range.end();
    const std::uint64_t own_end = whole ? end : align_down(end, unit);
    if (own_end > at) {
      StatusExtent own = extent;
      own.length = own_end - at;
      answer.append(own);
      at = own_end;
    }
    if (whole || end <= at) continue;
    const std::uint64_t mixed_end = std::min(align_up(end, unit), range.end());
    StatusExtent mixed;
    mixed.depth = std::max(extent.depth, own_layer);
    mixed.length = mixed_end - at;
    answer.append(mixed);
    at = mixed_end;
  }
}

}  // namespace

Task<StatusExtents> block_status(Edge& edge, Range range, MapDepth depth, std::size_t extents_max) {
  assert(!range.empty() && extents_max > 0);
  Answer answer(extents_max);
  while (answer.covered() < range.length && !answer.enough()) {
    const Range rest{range.offset + answer.covered(), range.length - answer.covered()};
    CO_TRY(const Extents mapped, co_await edge.map(rest, depth));
    for (const Extent& extent : mapped.list) {
      const std::uint64_t before = answer.covered();
      CO_CHECK(co_await append_extent(answer, extent, depth));
      if (answer.covered() - before < extent.length || answer.enough()) break;
    }
  }
  const std::uint64_t unit = edge.limits().request_alignment;
  if (unit == 1) co_return answer.take();
  Answer whole(extents_max);
  append_in_whole_units(whole, answer.list(), range, unit, edge.size());
  co_return whole.take();
}

}  // namespace graph
