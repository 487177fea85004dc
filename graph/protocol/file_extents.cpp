#include "graph/protocol/file_extents.h"

#include <algorithm>
#include <cerrno>
#include <limits>

namespace graph {
namespace {

constexpr std::size_t extents_max = 64;  // of one answer; each costs two calls

Extent extent_of(ExtentKind kind, std::uint64_t offset, std::uint64_t length) {
  Extent extent;
  extent.length = length;
  extent.kind = kind;
  extent.allocated = true;
  extent.settled = true;
  extent.offset = offset;
  return extent;
}

SysTask<std::uint64_t> seek(EngineFile& file, Seek what, std::uint64_t offset) {
  for (;;) {
    const SysResult<std::uint64_t> found = co_await file.seek(what, offset);
    if (found || found.error().number != EINTR) co_return found;
  }
}

}  // namespace

Extents FileExtents::all_data(Range range) {
  Extents extents;
  extents.list.push_back(extent_of(ExtentKind::data, range.offset, range.length));
  return extents;
}

void FileExtents::forget() {
  known_.fill(Range{});
  ++generation_;
}

const Range* FileExtents::known_at(std::uint64_t offset) const {
  const auto found = std::ranges::find_if(
      known_, [&](const Range& data) { return data.offset <= offset && offset < data.end(); });
  return found == known_.end() ? nullptr : found;
}

void FileExtents::remember(Range data) {
  known_[next_] = data;
  next_ = (next_ + 1) % known_.size();
}

// The next data at or after `offset`: [offset, end of data), or an empty range where there is none.
// What can't be asked is data.
SysTask<Range> FileExtents::ask(EngineFile& file, std::uint64_t offset, std::uint64_t size) {
  const Range rest{offset, size - offset};
  const SysResult<std::uint64_t> data = co_await seek(file, Seek::data, offset);
  if (!data && data.error().number == ENXIO) {
    // a hole up to the end, if the end is where it should be: else a read fails, no zeroes
    const SysResult<FileStatus> status = co_await file.status();
    if (!status || status->size < size) co_return rest;
    co_return Range{size, 0};
  }
  if (!data || *data < offset) co_return rest;
  if (*data >= size) co_return Range{size, 0};
  const SysResult<std::uint64_t> hole = co_await seek(file, Seek::hole, *data);
  if (!hole || *hole <= *data) co_return Range{*data, size - *data};
  co_return Range{*data, std::min(*hole, size) - *data};
}

SysTask<Extents> FileExtents::find(EngineFile& file, Range range, std::uint64_t size) {
  Extents extents;
  for (std::uint64_t at = range.offset; at < range.end() && extents.list.size() < extents_max;) {
    Range data;
    if (const Range* known = known_at(at)) {
      data = *known;
    } else {
      const std::uint64_t asked = generation_;
      const SysResult<Range> answer = co_await ask(file, at, size);
      if (!answer) co_return std::unexpected(answer.error());
      data = *answer;
      if (asked == generation_ && !data.empty()) remember(data);
    }
    if (data.offset > at) {
      const std::uint64_t end = std::min(data.offset, range.end());
      extents.list.push_back(extent_of(ExtentKind::zero, at, end - at));
      at = end;
    }
    if (at < range.end() && !data.empty()) {
      const std::uint64_t end = std::min(data.end(), range.end());
      extents.list.push_back(extent_of(ExtentKind::data, at, end - at));
      at = end;
    }
  }
  co_return std::move(extents);
}

}  // namespace graph
