// read.cpp - the guest's bytes, and where they live.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "formats/qcow2/image.h"

namespace formats::qcow2 {
namespace {

constexpr std::size_t extents_max = 256;  // of one answer

}  // namespace

Result<> seen_by_guest(Result<> done, std::uint64_t child, std::uint64_t guest) {
  if (done) return done;
  const std::uint64_t at = done.error().offset;
  return std::unexpected(std::move(done).error().at(guest + (at > child ? at - child : 0)));
}

// The pin is taken by the caller: a task starts when it is awaited, and the world goes on before.
Task<> Image::read_data(Epochs::Pin pin, std::uint64_t host, std::uint64_t guest,
                        const Buffers& out) {
  if (edges_.data->is_watched()) co_await edges_.data->event(graph::DebugEvent::read_aio);
  co_return seen_by_guest(co_await edges_.data->read(host, out), host, guest);
}

Task<> Image::read(std::uint64_t guest, const Buffers& out) {
  if (!health_.failed()) [[likely]] {
    const auto run = active_.run_now(guest, out.size());
    if (run && *run && (*run)->kind == RunKind::data && (*run)->length == out.size() &&
        Range{(*run)->host, out.size()}.lies_within(edges_.data->size())) {
      return read_data(epochs_.enter(), (*run)->host, guest, out);
    }
  }
  return tell(read_of(active_, guest, out));
}

// From the layer below, and zeroes where it ends or there is none.
Task<> Image::read_behind(std::uint64_t guest, const Buffers& out) {
  std::uint64_t there = 0;
  if (edges_.backing != nullptr && guest < edges_.backing->size()) {
    there = std::min<std::uint64_t>(out.size(), edges_.backing->size() - guest);
  }
  fill_zero(out.slice(there, out.size() - there));
  if (there == 0) co_return ok;
  if (edges_.file->is_watched()) co_await edges_.file->event(graph::DebugEvent::read_backing_aio);
  const Buffers first = out.slice(0, there);
  co_return co_await edges_.backing->read(guest, first);
}

Task<> Image::read_run(const Run& run, std::uint64_t guest, const Buffers& out) {
  switch (run.kind) {
    case RunKind::below:
      co_return co_await read_behind(guest, out);
    case RunKind::zero:
      fill_zero(out);
      co_return ok;
    case RunKind::compressed: {
      const Range place{run.place.offset, run.place.length};
      CO_TRY(const CompressedCache::Content content,
             at_guest(co_await compressed_.get(*edges_.file, *home_, *helpers_, header_.compression,
                                               place),
                      guest));
      if (content == nullptr) {
        co_return std::unexpected(health_.fault(
            Errc::io_error,
            fmt::format("the compressed cluster at {:#x} can't be decompressed", place.offset),
            guest));
      }
      const std::uint64_t into = geometry().in_cluster(guest);
      copy_bytes(out, ConstBuffers(std::span(*content).subspan(into, out.size())));
      co_return ok;
    }
    case RunKind::data:
      break;
  }
  // what the file is too short for was never written
  const std::uint64_t size = edges_.data->size();
  const std::uint64_t there =
      run.host < size ? std::min<std::uint64_t>(out.size(), size - run.host) : 0;
  fill_zero(out.slice(there, out.size() - there));
  if (there == 0) co_return ok;
  if (edges_.data->is_watched()) co_await edges_.data->event(graph::DebugEvent::read_aio);
  const Buffers first = out.slice(0, there);
  co_return seen_by_guest(co_await edges_.data->read(run.host, first), run.host, guest);
}

Task<> Image::read_of(Mapping& mapping, std::uint64_t guest, const Buffers& out) {
  if (health_.failed()) co_return std::unexpected(health_.failure_found());
  for (std::uint64_t done = 0; done < out.size();) {
    const std::uint64_t at = guest + done;
    const std::uint64_t rest = out.size() - done;
    const Epochs::Pin pin = epochs_.enter();
    Run run;
    if (const auto now = mapping.run_now(at, rest)) {
      CO_TRY(run, at_guest(*now, at));
    } else {
      CO_TRY(run, at_guest(co_await mapping.run(at, rest), at));
    }
    const Buffers part = out.slice(done, run.length);
    Result<> read = co_await read_run(run, at, part);
    if (!read) {
      if (read.error().offset < at) read.error().offset = at;
      co_return read;
    }
    done += run.length;
  }
  co_return ok;
}

graph::Extent Image::extent_of(const Run& run, std::uint64_t guest) {
  graph::Extent extent;
  extent.length = run.length;
  extent.allocated = run.kind != RunKind::below;
  switch (run.kind) {
    case RunKind::below:
      extent.kind = graph::ExtentKind::below;
      extent.via = edges_.backing;
      extent.offset = guest;
      break;
    case RunKind::zero:
      extent.kind = graph::ExtentKind::zero;
      extent.provisioned = run.reserved;
      if (run.reserved) {
        extent.via = edges_.data;
        extent.offset = run.host;
      }
      break;
    case RunKind::data:
      extent.kind = graph::ExtentKind::data;
      extent.via = edges_.data;
      extent.offset = run.host;
      break;
    case RunKind::compressed:
      extent.kind = graph::ExtentKind::opaque;
      break;
  }
  return extent;
}

Task<graph::Extents> Image::map_of(Mapping& mapping, Range range) {
  if (health_.failed()) co_return std::unexpected(health_.failure_found());
  graph::Extents extents;
  extents.pin = std::make_shared<Epochs::Pin>(epochs_.enter());
  for (std::uint64_t done = 0; done < range.length && extents.list.size() < extents_max;) {
    const std::uint64_t at = range.offset + done;
    CO_TRY(const Run run, at_guest(co_await mapping.run(at, range.length - done), at));
    extents.list.push_back(extent_of(run, at));
    done += run.length;
  }
  co_return std::move(extents);
}

Task<graph::Extents> Image::map(Range range) { return map_of(active_, range); }

}  // namespace formats::qcow2
