#include "graph/block_backend.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace graph {

BlockBackend::BlockBackend(Edge edge, ViewOptions options)
    : edge_(std::move(edge)), options_(std::move(options)) {
  if (options_.policy == RangePolicy::fixed) {
    window_ = options_.window.value_or(Range{0, edge_.size()});
  }
}

BlockBackend::~BlockBackend() = default;

std::uint64_t BlockBackend::size() const { return window_ ? window_->length : edge_.size(); }

std::uint32_t BlockBackend::alignment() const {
  std::uint32_t unit = edge_.limits().request_alignment;
  while (unit > 1 && !(is_aligned(start(), unit) && is_aligned(size(), unit))) unit /= 2;
  return unit;
}

Result<> BlockBackend::check(Intent intent, Range range) const {
  if (intent == Intent::write && !writable()) {
    return failure(Errc::read_only, options_.user + " is read-only");
  }
  if (range.lies_within(size())) return ok;
  if (intent == Intent::write && !window_ && edge_.may(Permission::resize) &&
      range.lies_within(size_max)) {
    return ok;
  }
  return std::unexpected(Error(Errc::out_of_range, "", range.offset,
                               options_.user + ": " + std::to_string(range.length) + " bytes at " +
                                   std::to_string(range.offset) + " leave its size of " +
                                   std::to_string(size())));
}

Task<Gate::Pass> BlockBackend::enter(Intent intent, Range range) {
  CO_CHECK(check(intent, range));
  if (gate_->closed() && options_.queue_while_drained) {
    const std::shared_ptr<Gate> gate = gate_;
    Gate::Pass pass = co_await gate->enter();
    if (!pass) co_return failure(Errc::shutting_down, "the view was detached");  // `this` is gone
    CO_CHECK(check(intent, range));  // the world may have changed meanwhile
    co_return std::move(pass);
  }
  co_return gate_->enter_anyway();
}

Result<> BlockBackend::seen_from_here(Result<> done) const {
  if (done) return done;
  const std::uint64_t at = done.error().offset;
  return std::unexpected(std::move(done).error().at(at >= start() ? at - start() : 0));
}

// The hot path: one coroutine between the front-end and the node.
Task<> BlockBackend::read(std::uint64_t offset, const Buffers& out) {
  const Range range{offset, out.size()};
  if (Result<> allowed = check(Intent::read, range); !allowed) co_return allowed;
  if (range.empty()) co_return ok;
  Gate::Pass pass = gate_->try_enter();
  if (!pass) {
    CO_TRY(Gate::Pass late, co_await enter(Intent::read, range));
    pass = std::move(late);
  }
  Result<> done = co_await edge_.read(start() + offset, out);
  if (!done) co_return seen_from_here(std::move(done));
  co_return done;
}

Task<> BlockBackend::write(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) {
  const Range range{offset, data.size()};
  if (Result<> allowed = check(Intent::write, range); !allowed) co_return allowed;
  if (range.empty()) co_return ok;
  Gate::Pass pass = gate_->try_enter();
  if (!pass) {
    CO_TRY(Gate::Pass late, co_await enter(Intent::write, range));
    pass = std::move(late);
  }
  flags.fua = flags.fua || options_.write_through;
  Result<> done = co_await edge_.write(start() + offset, data, flags);
  if (!done) co_return seen_from_here(std::move(done));
  co_return done;
}

Task<> BlockBackend::write_zeroes(Range range, ZeroFlags flags) {
  CO_TRY(const Gate::Pass pass, co_await enter(Intent::write, range));
  if (range.empty()) co_return ok;
  flags.fua = flags.fua || options_.write_through;
  co_return seen_from_here(co_await edge_.write_zeroes(range.shifted(start()), flags));
}

Task<> BlockBackend::discard(Range range, WriteFlags flags) {
  CO_TRY(const Gate::Pass pass, co_await enter(Intent::write, range));
  if (range.empty()) co_return ok;
  CO_CHECK(seen_from_here(co_await edge_.discard(range.shifted(start()))));
  if (flags.fua || options_.write_through) co_return co_await edge_.flush();
  co_return ok;
}

// F-7: also on a read-only view; what others wrote through the node is covered, too.
Task<> BlockBackend::flush() {
  CO_TRY(const Gate::Pass pass, co_await enter(Intent::read, Range{}));
  co_return co_await edge_.flush();
}

Task<> BlockBackend::prefetch(Range range) {
  CO_TRY(const Gate::Pass pass, co_await enter(Intent::read, range));
  const std::uint64_t end = range.end();
  if (range.empty()) co_return ok;
  Result<> done = co_await edge_.prefetch(range.shifted(start()));
  if (done || done.error().code != Errc::not_supported) co_return seen_from_here(std::move(done));
  constexpr std::uint64_t piece_max = 1 * MiB;
  PooledBuffer scratch(node().home().buffers, std::min(range.length, piece_max));
  for (std::uint64_t at = range.offset; at < end;) {
    const std::uint64_t n = std::min<std::uint64_t>(scratch.size(), end - at);
    const Buffers piece(scratch.bytes().first(n));
    CO_CHECK(seen_from_here(co_await edge_.read(start() + at, piece)));
    at += n;
  }
  co_return ok;
}

Task<StatusExtents> BlockBackend::block_status(Range range, MapDepth depth,
                                               std::size_t extents_max) {
  CO_TRY(const Gate::Pass pass, co_await enter(Intent::read, range));
  assert(!range.empty());
  auto answer = co_await graph::block_status(edge_, range.shifted(start()), depth, extents_max);
  if (answer) co_return answer;
  Result<> seen = seen_from_here(std::unexpected(std::move(answer).error()));
  co_return std::unexpected(std::move(seen).error());
}

Task<> BlockBackend::resize(std::uint64_t size) {
  if (window_) {
    co_return failure(Errc::permission_denied, options_.user + " has a fixed size");
  }
  CO_TRY(const Gate::Pass pass, co_await enter(Intent::write, Range{}));
  co_return co_await edge_.resize(size);
}

asio::awaitable<void> BlockBackend::drain() {
  const std::shared_ptr<Gate> gate = gate_;
  gate->close();
  co_await gate->drained();
}

Result<> BlockBackend::check_resize(std::uint64_t size) const {
  if (!window_ || window_->end() <= size) return ok;
  return failure(Errc::busy, options_.user + " uses node '" + node().name() + "' up to byte " +
                                 std::to_string(window_->end()) + ", it can't become " +
                                 std::to_string(size) + " bytes long");
}

}  // namespace graph
