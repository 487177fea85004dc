#include "graph/block_status.h"

#include <algorithm>
#include <cassert>

namespace graph {
namespace {

void append(StatusExtents& list, StatusExtent extent) {
  if (!list.empty() && list.back().same_status(extent)) {
    list.back().length += extent.length;
  } else {
    list.push_back(extent);
  }
}

// S-6: stored data may still be a hole of the file that stores it.
Task<> append_stored(StatusExtents& list, const Extent& extent, std::uint32_t layer, MapDepth depth) {
  StatusExtent status;
  status.length = extent.length;
  status.depth = layer;
  const bool ask = depth == MapDepth::zeroes && !extent.settled && extent.via != nullptr;
  if (!ask) {
    append(list, status);
    co_return ok;
  }
  const std::uint64_t child_size = extent.via->size();
  std::uint64_t at = extent.offset;
  for (std::uint64_t left = extent.length; left > 0;) {
    if (at >= child_size) {  // the end of the file inside of the extent reads as zeroes
      status.length = left;
      status.zero = true;
      append(list, status);
      break;
    }
    const Range rest{at, std::min(left, child_size - at)};
    CO_TRY(const StatusExtents below, co_await block_status(*extent.via, rest, depth, 64));
    for (const StatusExtent& part : below) {
      status.length = part.length;
      status.zero = part.zero;
      append(list, status);
      at += part.length;
      left -= part.length;
    }
  }
  co_return ok;
}

// B-1: beyond the end of a short layer its zeroes count as its own.
Task<> append_below(StatusExtents& list, const Extent& extent, std::uint32_t layer, MapDepth depth,
                    std::size_t extents_max) {
  StatusExtent status;
  status.length = extent.length;
  status.data = false;
  status.zero = true;
  if (extent.via == nullptr) {
    status.depth = 0;
    append(list, status);
    co_return ok;
  }
  const std::uint64_t size = extent.via->size();
  const std::uint64_t there =
      extent.offset >= size ? 0 : std::min(extent.length, size - extent.offset);
  if (there > 0) {
    const Range rest{extent.offset, there};
    CO_TRY(const StatusExtents below, co_await block_status(*extent.via, rest, depth, extents_max));
    std::uint64_t covered = 0;
    for (StatusExtent part : below) {
      covered += part.length;
      if (part.depth > 0) part.depth += layer;
      append(list, part);
    }
    if (covered < there) co_return ok;  // the caller asks again from there
  }
  if (extent.length > there) {
    status.length = extent.length - there;
    status.depth = layer + 1;
    append(list, status);
  }
  co_return ok;
}

std::uint64_t total(const StatusExtents& list) {
  std::uint64_t sum = 0;
  for (const auto& extent : list) sum += extent.length;
  return sum;
}

// Makes each boundary a multiple of `unit` from the node's start: a unit with two answers counts as data.
StatusExtents in_whole_units(const StatusExtents& list, Range range, std::uint64_t unit,
                             std::uint64_t node_size) {
  if (unit == 1) return list;
  StatusExtents result;
  std::uint64_t at = range.offset;  // end of what `result` covers
  std::uint64_t end = range.offset;
  for (const auto& extent : list) {
    end += extent.length;
    const bool whole = is_aligned(end, unit) || end == node_size || end == range.end();
    const std::uint64_t own_end = whole ? end : align_down(end, unit);
    if (own_end > at) {
      StatusExtent own = extent;
      own.length = own_end - at;
      append(result, own);
      at = own_end;
    }
    if (whole) continue;
    const std::uint64_t mixed_end = std::min(align_up(end, unit), range.end());
    StatusExtent mixed;
    mixed.depth = std::max(extent.depth, 1U);
    mixed.length = mixed_end - at;
    append(result, mixed);
    at = mixed_end;
  }
  return result;
}

}  // namespace

Task<StatusExtents> block_status(Edge& edge, Range range, MapDepth depth, std::size_t extents_max) {
  assert(!range.empty() && extents_max > 0);
  constexpr std::uint32_t layer = 1;
  StatusExtents list;
  for (Range rest = range; !rest.empty() && list.size() <= extents_max;) {
    CO_TRY(const Extents mapped, co_await edge.map(rest, depth));
    const std::uint64_t before = total(list);
    for (const Extent& extent : mapped.list) {
      const std::uint64_t start = total(list);
      if (extent.kind == ExtentKind::below) {
        CO_CHECK(co_await append_below(list, extent, layer, depth, extents_max));
      } else if (extent.kind == ExtentKind::data) {
        CO_CHECK(co_await append_stored(list, extent, layer, depth));
      } else {
        StatusExtent status;
        status.length = extent.length;
        status.zero = extent.kind == ExtentKind::zero;
        status.data = extent.kind == ExtentKind::opaque || extent.provisioned;
        status.depth = extent.allocated || extent.kind == ExtentKind::opaque ? layer : 0;
        append(list, status);
      }
      if (total(list) - start < extent.length) break;
    }
    const std::uint64_t covered = total(list) - before;
    rest = {rest.offset + covered, rest.length - covered};
  }
  list = in_whole_units(list, range, edge.limits().request_alignment, edge.size());
  if (list.size() > extents_max) list.resize(extents_max);
  co_return list;
}

}  // namespace graph
