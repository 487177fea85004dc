#include "graph/request_path.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace graph::request_path {
namespace {

constexpr std::size_t zero_write_max =
    1 * MiB;  // of zeroes written at a time where there is no better way

// `range` grown to whole units, but not past the end that the node has, or has after the request
// there a request may stop anywhere.
Range padded(const Node& node, Range range) {
  Range wide = range.widened(node.needs().request_alignment);
  wide.length = std::min(wide.end(), std::max(node.size(), range.end())) - wide.offset;
  return wide;
}

bool needs_padding(const Node& node, Range range) { return padded(node, range) != range; }

// An error as the caller sees it, who asked for `wanted`: a bad byte in the padding is a bad unit,
// and the first of the caller's bytes in that unit is the one that failed.
Result<> seen_in(Range wanted, const Node& node, Result<> done) {
  if (done) return done;
  std::uint64_t at = done.error().offset;
  if (at >= wanted.end()) at = align_down(at, node.needs().request_alignment);
  if (at < wanted.offset || at >= wanted.end()) at = wanted.offset;
  return std::unexpected(std::move(done).error().at(at));
}

// What makes a write at `offset` durable. It fails as that write.
Task<> flush_after(Node& node, std::uint64_t offset) {
  Result<> done = co_await node.flushes().flush(node, FlushDepth::disk);
  if (done) co_return done;
  co_return std::unexpected(std::move(done).error().at(offset));
}

using Claim = RequestTracker::Claim;
using Hold = RequestTracker::Hold;

// What a write of `range` must keep others away from. An ordinary write waits only for a
// read-modify-write. One that moves a ragged end keeps everybody from that end, where requests may
// be on their way that stop at it.
RequestTracker::Entry claim_wanted(const Node& node, Range range) {
  const std::uint64_t unit = node.needs().request_alignment;
  const std::uint64_t size = node.size();
  if (range.end() > size && !(is_aligned(size, unit) && is_aligned(range.end(), unit))) {
    const std::uint64_t start = align_down(std::min(size, range.offset), unit);
    return {{start, std::numeric_limits<std::uint64_t>::max() - start}, Hold::exclusive};
  }
  if (needs_padding(node, range)) return {range.widened(unit), Hold::exclusive};
  return {range, Hold::shared};
}

// Where no request is ever padded there is nothing to claim.
asio::awaitable<Claim> claim(Node& node, Range range) {
  if (node.needs().request_alignment == 1) co_return Claim();
  for (;;) {
    const RequestTracker::Entry wanted = claim_wanted(node, range);
    Claim held = co_await node.tracker().claim(wanted.range, wanted.hold);
    if (claim_wanted(node, range) == wanted) co_return std::move(held);
    // the end of the node moved meanwhile
  }
}

// The request is here: of interest only where faults are injected.
asio::awaitable<void> come_to(Node& node, DebugEvent event) {
  if (node.hears_events()) co_await node.meet(event);
}

// An aligned read in pieces of max_transfer.
Task<> read_aligned(Node& node, std::uint64_t offset, const Buffers& out) {
  const std::uint64_t max = node.needs().max_transfer;
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
Task<> write_pieces(Node& node, std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) {
  const Limits& limits = node.needs();
  if (data.size() <= limits.max_transfer) {
    WriteFlags passed = flags;
    passed.fua = flags.fua && limits.native_fua && !node.common().no_flush;
    CO_CHECK(co_await node.write(offset, data, passed));
    if (!flags.fua || passed.fua) co_return ok;
    co_return co_await flush_after(node, offset);
  }
  for (std::uint64_t done = 0; done < data.size();) {
    const std::uint64_t n = std::min(limits.max_transfer, data.size() - done);
    const ConstBuffers piece = data.slice(done, n);
    CO_CHECK(co_await node.write(offset + done, piece, WriteFlags{}));
    done += n;
  }
  if (flags.fua) CO_CHECK(co_await flush_after(node, offset));
  co_return ok;
}

Task<> write_aligned(Node& node, std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) {
  if (!node.hears_events()) co_return co_await write_pieces(node, offset, data, flags);
  co_await node.meet(DebugEvent::pwritev);
  Result<> done = co_await write_pieces(node, offset, data, flags);
  co_await node.meet(DebugEvent::pwritev_done);
  co_return done;
}

// Memory that satisfies the node where the caller's does not.
struct Bounce {
  PooledBuffer memory;
  Buffers list;
  Bounce(Node& node, std::size_t size) : memory(node.home().buffers, size), list(memory.bytes()) {}
};

// Reads the unit that holds a ragged edge; what lies past the node's end is zero there.
Task<> read_unit(Node& node, std::uint64_t offset, std::span<std::byte> unit) {
  const std::uint64_t there =
      std::min<std::uint64_t>(unit.size(), node.size() > offset ? node.size() - offset : 0);
  const Buffers filled(unit.first(there));
  if (there > 0) CO_CHECK(co_await read_aligned(node, offset, filled));
  std::ranges::fill(unit.subspan(there), std::byte{0});
  co_return ok;
}

// reads the units at both ends, puts the data between, writes the whole. When a read fails
// nothing is written. Requires: nobody else writes there meanwhile.
Task<> write_padded(Node& node, std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) {
  const Range wanted{offset, data.size()};
  const Range whole = padded(node, wanted);
  const std::uint64_t unit = node.needs().request_alignment;
  const std::uint64_t head = wanted.offset - whole.offset;
  const std::uint64_t tail = whole.end() - wanted.end();

  Bounce bounce(node, whole.length);
  const auto bytes = bounce.memory.bytes();
  const std::uint64_t first_unit = std::min(unit, whole.length);
  const std::uint64_t last_unit_at = align_down(whole.length - 1, unit);
  const bool one_read = head > 0 && tail > 0 && last_unit_at == 0;
  if (head > 0) {
    co_await come_to(node, DebugEvent::pwritev_rmw_head);
    if (one_read) co_await come_to(node, DebugEvent::pwritev_rmw_tail);
    CO_CHECK(co_await read_unit(node, whole.offset, bytes.first(first_unit)));
    co_await come_to(node, DebugEvent::pwritev_rmw_after_head);
    if (one_read) co_await come_to(node, DebugEvent::pwritev_rmw_after_tail);
  }
  if (tail > 0 && !one_read) {
    co_await come_to(node, DebugEvent::pwritev_rmw_tail);
    CO_CHECK(co_await read_unit(node, whole.offset + last_unit_at, bytes.subspan(last_unit_at)));
    co_await come_to(node, DebugEvent::pwritev_rmw_after_tail);
  }
  const Buffers middle(bytes.subspan(head, wanted.length));
  copy_bytes(middle, data);
  const ConstBuffers all(bounce.list);
  co_return co_await write_aligned(node, whole.offset, all, flags);
}

Task<> write_bytes(Node& node, std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) {
  const Range wanted{offset, data.size()};
  const Claim held = co_await claim(node, wanted);
  if (needs_padding(node, wanted)) {
    co_return seen_in(wanted, node, co_await write_padded(node, offset, data, flags));
  }
  if (data.is_aligned_to(node.needs().memory_alignment)) {
    co_return co_await write_aligned(node, offset, data, flags);
  }
  Bounce bounce(node, data.size());
  copy_bytes(bounce.list, data);
  const ConstBuffers copied(bounce.list);
  co_return co_await write_aligned(node, offset, copied, flags);
}

Task<> write_zero_bytes(Node& node, Range range) {
  if (range.empty()) co_return ok;
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

// One piece, by the node itself.
// Errors: not_supported when the node can't, or can't any more since its end has moved.
Task<> zero_natively(Node& node, Range piece, ZeroFlags flags) {
  if (!node.needs().native_zeroes) co_return failure(Errc::not_supported, "zeroes are written");
  const Claim held = co_await claim(node, piece);
  if (needs_padding(node, piece)) co_return failure(Errc::not_supported, "zeroes are written");
  co_return co_await node.write_zeroes(piece, flags);
}

Task<> zero_aligned(Node& node, Range range, ZeroFlags flags) {
  while (!range.empty()) {
    const Range piece{range.offset, std::min(node.needs().max_zeroes, range.length)};
    Result<> done = co_await zero_natively(node, piece, flags);
    if (!done && done.error().code == Errc::not_supported && !flags.no_fallback) {
      done = co_await write_zero_bytes(node, piece);
    }
    CO_CHECK(std::move(done));
    range = {piece.end(), range.length - piece.length};
  }
  co_return ok;
}

// The next piece of a discard of [at, end): whole units as many as may be, or what is left of one.
std::uint64_t discard_piece(const Node& node, std::uint64_t at, std::uint64_t end) {
  const Limits& limits = node.needs();
  const std::uint64_t unit = limits.discard_alignment;
  const std::uint64_t whole = end == node.size() ? end - at : align_down(end - at, unit);
  if (is_aligned(at, unit) && whole > 0) return std::min(whole, limits.max_discard);
  return std::min(align_down(at, unit) + unit, end) - at;
}

Task<> zero_unnoted(Node& node, Range range, ZeroFlags flags) {
  if (range.empty()) co_return ok;
  const Limits& limits = node.needs();
  if (node.common().discard == DiscardMode::ignore) flags.may_unmap = false;  // Z-2
  const Parts parts = split(range, limits.zero_alignment, node.size());
  if (flags.no_fallback && (!limits.native_zeroes || parts.middle.length != range.length)) {  // Z-5
    co_return failure(Errc::not_supported, "zeroes can't be written without writing them");
  }
  ZeroFlags passed = flags;
  passed.fua = false;
  CO_CHECK(co_await write_zero_bytes(node, parts.head));
  if (!parts.middle.empty()) {
    co_await come_to(node, DebugEvent::pwritev_zero);
    Result<> done = co_await zero_aligned(node, parts.middle, passed);
    co_await come_to(node, DebugEvent::pwritev_done);
    CO_CHECK(std::move(done));
  }
  CO_CHECK(co_await write_zero_bytes(node, parts.tail));
  if (flags.fua) CO_CHECK(co_await flush_after(node, range.offset));  // F-6
  co_return ok;
}

Task<> write_unnoted(Node& node, std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) {
  const DetectZeroes detect = node.common().detect_zeroes;
  if (detect != DetectZeroes::off && node.limits().native_zeroes && is_zero(data)) {  // Z-1
    ZeroFlags as_zeroes;
    as_zeroes.fua = flags.fua;
    as_zeroes.may_unmap = detect == DetectZeroes::unmap;
    return zero_unnoted(node, {offset, data.size()}, as_zeroes);
  }
  return write_bytes(node, offset, data, flags);
}

// Z-3. What is no whole unit of a request can't be given back, and is none of the node's business.
Task<> discard_unnoted(Node& node, Range range) {
  const std::uint64_t unit = node.needs().request_alignment;
  const Claim held = co_await claim(node, padded(node, range));
  const std::uint64_t end =
      range.end() == node.size() ? range.end() : align_down(range.end(), unit);
  for (std::uint64_t at = align_up(range.offset, unit); at < end;) {
    const Range piece{at, discard_piece(node, at, end)};
    Result<> done = co_await node.discard(piece);
    if (!done && done.error().code != Errc::not_supported) co_return done;
    at = piece.end();
  }
  co_return ok;
}

// Bitmaps hear of a change when it is over, whatever came of it, and before its caller does. Not
// earlier: who takes what a bitmap says and clears it, and reads then, has to be told again of what
// was on its way meanwhile.
Task<> recorded(Node& node, Range range, Task<> change) {
  Result<> done = co_await std::move(change);
  node.bitmaps().mark(range);
  co_return done;
}

Task<> noted(Node& node, Range range, Task<> change) {
  if (!node.bitmaps().recording()) return change;
  return recorded(node, range, std::move(change));
}

}  // namespace

Task<> read(Node& node, std::uint64_t offset, const Buffers& out) {
  const Range wanted{offset, out.size()};
  const Range whole = padded(node, wanted);
  if (whole == wanted && out.is_aligned_to(node.needs().memory_alignment)) {
    co_return co_await read_aligned(node, offset, out);
  }
  Bounce bounce(node, whole.length);
  Result<> done = co_await read_aligned(node, whole.offset, bounce.list);
  if (!done) {  // what comes before the byte that failed is good, and the caller may use it
    Result<> seen = seen_in(wanted, node, std::move(done));
    const std::uint64_t at = std::clamp(seen.error().offset, wanted.offset, wanted.end());
    const Buffers good(
        bounce.memory.bytes().subspan(wanted.offset - whole.offset, at - wanted.offset));
    copy_bytes(out, ConstBuffers(good));
    co_return seen;
  }
  const Buffers inner(bounce.memory.bytes().subspan(wanted.offset - whole.offset, wanted.length));
  copy_bytes(out, ConstBuffers(inner));
  co_return ok;
}

Task<> write(Node& node, std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) {
  return noted(node, {offset, data.size()}, write_unnoted(node, offset, data, flags));
}

Task<> write_zeroes(Node& node, Range range, ZeroFlags flags) {
  return noted(node, range, zero_unnoted(node, range, flags));
}

Task<> discard(Node& node, Range range) {
  if (range.empty() || node.common().discard == DiscardMode::ignore) return succeeded();  // Z-2
  return noted(node, range, discard_unnoted(node, range));
}

Task<> resize(Node& node, std::uint64_t size) {
  Claim held;
  if (const std::uint64_t unit = node.needs().request_alignment; unit > 1) {
    // nobody writes what goes, or stops at an end that moves
    const std::uint64_t start = align_down(std::min(size, node.size()), unit);
    const Range moving{start, std::numeric_limits<std::uint64_t>::max() - start};
    held = co_await node.tracker().claim(moving, Hold::exclusive);
  }
  CO_CHECK(check_resize(node, size));
  co_return co_await node.resize(size);
}

}  // namespace graph::request_path
