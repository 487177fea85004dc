#include "graph/request_path.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace graph::request_path {
namespace {

constexpr std::size_t zero_write_max = 1 * MiB;  // of zeroes written at a time where there is no better way

// `range` grown to whole units, but not past the end of the node, where a request may stop anywhere.
Range padded(const Node& node, Range range) {
  Range wide = range.widened(node.limits().request_alignment);
  if (range.end() <= node.size()) wide.length = std::min(wide.end(), node.size()) - wide.offset;
  return wide;
}

bool needs_padding(const Node& node, Range range) { return padded(node, range) != range; }

// An aligned read in pieces of max_transfer.
Task<> read_aligned(Node& node, std::uint64_t offset, const Buffers& out) {
  const std::uint64_t max = align_down(node.limits().max_transfer, node.limits().request_alignment);
  if (out.size() <= max) co_return co_await node.read(offset, out);
  for (std::uint64_t done = 0; done < out.size();) {
    const std::uint64_t n = std::min(max, out.size() - done);
    const Buffers piece = out.slice(done, n);
    CO_CHECK(co_await node.read(offset + done, piece));
    done += n;
  }
  co_return ok;
}

// An aligned write in pieces of max_transfer; FUA once, after the last (F-5, A-4).
Task<> write_aligned(Node& node, std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) {
  const Limits& limits = node.limits();
  const std::uint64_t max = align_down(limits.max_transfer, limits.request_alignment);
  if (data.size() <= max) {
    WriteFlags passed = flags;
    passed.fua = flags.fua && limits.native_fua && !node.common().no_flush;
    CO_CHECK(co_await node.write(offset, data, passed));
    if (!flags.fua || passed.fua) co_return ok;
    co_return co_await node.flushes().flush(node, FlushDepth::disk);
  }
  for (std::uint64_t done = 0; done < data.size();) {
    const std::uint64_t n = std::min(max, data.size() - done);
    const ConstBuffers piece = data.slice(done, n);
    CO_CHECK(co_await node.write(offset + done, piece, WriteFlags{}));
    done += n;
  }
  if (flags.fua) CO_CHECK(co_await node.flushes().flush(node, FlushDepth::disk));
  co_return ok;
}

// Memory that satisfies the node where the caller's does not.
struct Bounce {
  PooledBuffer memory;
  Buffers list;
  Bounce(Node& node, std::size_t size) : memory(node.home().buffers, size), list(memory.bytes()) {}
};

// Reads the unit that holds a ragged edge; what lies past the node's end is zero there.
Task<> read_unit(Node& node, std::uint64_t offset, std::span<std::byte> unit) {
  const std::uint64_t there = std::min<std::uint64_t>(
      unit.size(), node.size() > offset ? node.size() - offset : 0);
  const Buffers filled(unit.first(there));
  if (there > 0) CO_CHECK(co_await read_aligned(node, offset, filled));
  std::ranges::fill(unit.subspan(there), std::byte{0});
  co_return ok;
}

// reads the units at both ends, puts the data between, writes the whole. Nobody else writes there
// meanwhile, and when a read fails nothing is written.
Task<> write_padded(Node& node, std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) {
  const Range wanted{offset, data.size()};
  const auto claim = co_await node.tracker().claim(
      wanted.widened(node.limits().request_alignment), RequestTracker::Hold::exclusive);
  const Range whole = padded(node, wanted);
  const std::uint64_t unit = node.limits().request_alignment;
  const std::uint64_t head = wanted.offset - whole.offset;
  const std::uint64_t tail = whole.end() - wanted.end();

  Bounce bounce(node, whole.length);
  const auto bytes = bounce.memory.bytes();
  const std::uint64_t first_unit = std::min(unit, whole.length);
  const std::uint64_t last_unit_at = align_down(whole.length - 1, unit);
  if (head > 0) CO_CHECK(co_await read_unit(node, whole.offset, bytes.first(first_unit)));
  if (tail > 0 && (head == 0 || last_unit_at != 0)) {
    CO_CHECK(co_await read_unit(node, whole.offset + last_unit_at, bytes.subspan(last_unit_at)));
  }
  const Buffers middle(bytes.subspan(head, wanted.length));
  copy_bytes(middle, data);
  const ConstBuffers all(bounce.list);
  co_return co_await write_aligned(node, whole.offset, all, flags);
}

// An ordinary write waits only for a read-modify-write; where there can be none it needs no claim.
Task<> write_tracked(Node& node, std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) {
  if (node.limits().request_alignment == 1) {
    co_return co_await write_aligned(node, offset, data, flags);
  }
  const auto claim =
      co_await node.tracker().claim({offset, data.size()}, RequestTracker::Hold::shared);
  if (data.is_aligned_to(node.limits().memory_alignment)) {
    co_return co_await write_aligned(node, offset, data, flags);
  }
  Bounce bounce(node, data.size());
  copy_bytes(bounce.list, data);
  const ConstBuffers copied(bounce.list);
  co_return co_await write_aligned(node, offset, copied, flags);
}

Task<> write_bytes(Node& node, std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) {
  if (needs_padding(node, {offset, data.size()})) return write_padded(node, offset, data, flags);
  return write_tracked(node, offset, data, flags);
}

Task<> write_zero_bytes(Node& node, Range range) {
  PooledBuffer zeroes(node.home().buffers, std::min<std::uint64_t>(range.length, zero_write_max));
  std::ranges::fill(zeroes.bytes(), std::byte{0});
  while (!range.empty()) {
    const std::uint64_t n = std::min<std::uint64_t>(range.length, zeroes.size());
    const ConstBuffers piece(zeroes.bytes().first(n));
    CO_CHECK(co_await write_bytes(node, range.offset, piece, WriteFlags{}));
    range = {range.offset + n, range.length - n};
  }
  co_return ok;
}

// The part of a range in whole units, and what is left over before and behind it.
struct Parts {
  Range head, middle, tail;
};
Parts split(Range range, std::uint64_t unit, std::uint64_t node_size) {
  const std::uint64_t start = align_up(range.offset, unit);
  // an end at the end of the node is as good as an aligned one
  const std::uint64_t end = range.end() == node_size ? range.end() : align_down(range.end(), unit);
  if (start >= end) return {range, {start, 0}, {range.end(), 0}};
  return {{range.offset, start - range.offset}, {start, end - start}, {end, range.end() - end}};
}

Task<> zero_aligned(Node& node, Range range, ZeroFlags flags) {
  const Limits& limits = node.limits();
  const std::uint64_t unit = std::max(limits.zero_alignment, limits.request_alignment);
  const std::uint64_t max = align_down(limits.max_zeroes, unit);
  while (!range.empty()) {
    const Range piece{range.offset, std::min(max, range.length)};
    Result<> done = failure(Errc::not_supported, "zeroes are written");
    if (limits.native_zeroes) {
      const auto claim = limits.request_alignment == 1
                             ? RequestTracker::Claim()
                             : co_await node.tracker().claim(piece, RequestTracker::Hold::shared);
      done = co_await node.write_zeroes(piece, flags);
    }
    if (!done && done.error().code == Errc::not_supported && !flags.no_fallback) {
      done = co_await write_zero_bytes(node, piece);
    }
    CO_CHECK(std::move(done));
    range = {piece.end(), range.length - piece.length};
  }
  co_return ok;
}

}  // namespace

bool fits(const Limits& limits, std::uint64_t node_size, std::uint64_t offset, std::size_t length) {
  return length <= limits.max_transfer && is_aligned(offset, limits.request_alignment) &&
         (is_aligned(length, limits.request_alignment) || offset + length == node_size);
}

Task<> read(Node& node, std::uint64_t offset, const Buffers& out) {
  const Range wanted{offset, out.size()};
  const Range whole = padded(node, wanted);
  if (whole == wanted && out.is_aligned_to(node.limits().memory_alignment)) {
    co_return co_await read_aligned(node, offset, out);
  }
  Bounce bounce(node, whole.length);
  Result<> done = co_await read_aligned(node, whole.offset, bounce.list);
  if (!done) {
    // a bad byte in the padding is a bad unit: the caller's first byte in it is the one that failed; what comes
    // before it is good
    const std::uint64_t at = std::max(done.error().offset, wanted.offset);
    const std::uint64_t good = std::min(at - wanted.offset, wanted.length);
    const Buffers whole_part(bounce.memory.bytes().subspan(wanted.offset - whole.offset, good));
    copy_bytes(out, ConstBuffers(whole_part));
    co_return std::unexpected(std::move(done).error().at(at));
  }
  const Buffers inner(bounce.memory.bytes().subspan(wanted.offset - whole.offset, wanted.length));
  copy_bytes(out, ConstBuffers(inner));
  co_return ok;
}

Task<> write(Node& node, std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) {
  const DetectZeroes detect = node.common().detect_zeroes;
  if (detect != DetectZeroes::off && node.limits().native_zeroes && is_zero(data)) {  // Z-1
    ZeroFlags as_zeroes;
    as_zeroes.fua = flags.fua;
    as_zeroes.may_unmap = detect == DetectZeroes::unmap;
    return write_zeroes(node, {offset, data.size()}, as_zeroes);
  }
  return write_bytes(node, offset, data, flags);
}

Task<> write_zeroes(Node& node, Range range, ZeroFlags flags) {
  if (range.empty()) co_return ok;
  const Limits& limits = node.limits();
  if (node.common().discard == DiscardMode::ignore) flags.may_unmap = false;  // Z-2
  const std::uint64_t unit = std::max(limits.zero_alignment, limits.request_alignment);
  const Parts parts = split(range, unit, node.size());
  if (flags.no_fallback && (!limits.native_zeroes || parts.middle.length != range.length)) {  // Z-5
    co_return failure(Errc::not_supported, "zeroes can't be written without writing them");
  }
  ZeroFlags passed = flags;
  passed.fua = false;
  CO_CHECK(co_await write_zero_bytes(node, parts.head));
  CO_CHECK(co_await zero_aligned(node, parts.middle, passed));
  CO_CHECK(co_await write_zero_bytes(node, parts.tail));
  if (flags.fua) CO_CHECK(co_await node.flushes().flush(node, FlushDepth::disk));  // F-6
  co_return ok;
}

Task<> discard(Node& node, Range range) {
  if (range.empty() || node.common().discard == DiscardMode::ignore) co_return ok;  // Z-2
  const Limits& limits = node.limits();
  const Parts parts = split(range, limits.discard_alignment, node.size());
  const std::uint64_t max = align_down(limits.max_discard, limits.discard_alignment);
  const auto claim = limits.request_alignment == 1
                         ? RequestTracker::Claim()
                         : co_await node.tracker().claim(range, RequestTracker::Hold::shared);
  for (const Range part : {parts.head, parts.middle, parts.tail}) {
    for (Range rest = part; !rest.empty();) {
      const Range piece{rest.offset, std::min(max, rest.length)};
      Result<> done = co_await node.discard(piece);
      if (!done && done.error().code != Errc::not_supported) co_return done;  // Z-3
      rest = {piece.end(), rest.length - piece.length};
    }
  }
  co_return ok;
}

}  // namespace graph::request_path
