// zero.cpp - zeroes and discards: changes of the mapping alone, as far as whole clusters (whole
// subclusters, for zeroes) are concerned. Z-4 to Z-7, W-6 of docs/qcow2.md.
#include <algorithm>
#include <bit>
#include <utility>

#include "formats/qcow2/image.h"

namespace formats::qcow2 {
namespace {

using Hold = graph::RequestTracker::Hold;

constexpr std::size_t zeroes_max = 64 * KiB;  // written at a time

// Whole units of a range, and what is left over on both sides. A range that ends with the disk ends
// with a whole unit.
struct Parts {
  Range head, middle, tail;
};
Parts split(Range range, std::uint64_t unit, std::uint64_t disk_size) {
  const std::uint64_t start = align_up(range.offset, unit);
  const std::uint64_t end =
      range.end() == disk_size ? align_up(range.end(), unit) : align_down(range.end(), unit);
  if (start >= end) return {range, {start, 0}, {range.end(), 0}};
  return {{range.offset, start - range.offset},
          {start, end - start},
          {end, range.end() > end ? range.end() - end : 0}};
}

std::uint32_t all_bits(const Geometry& geometry) {
  return geometry.subclusters() == 32 ? 0xffff'ffffU : 1U;
}

// The bits of the subclusters that lie in `range`, both bytes of one cluster.
std::uint32_t covered(Range range, const Geometry& geometry) {
  const auto first = static_cast<unsigned>(range.offset / geometry.subcluster_size());
  const auto end = static_cast<unsigned>(range.end() / geometry.subcluster_size());
  return static_cast<std::uint32_t>(((std::uint64_t{1} << end) - 1) &
                                    ~((std::uint64_t{1} << first) - 1));
}

}  // namespace

// By the mapping alone.
Task<bool> Image::reads_zero(Range range) {
  for (std::uint64_t done = 0; done < range.length;) {
    const std::uint64_t at = range.offset + done;
    if (at >= size()) co_return true;
    CO_TRY(const Run run, co_await active_.run(at, range.length - done));
    const bool behind =
        run.kind == RunKind::below && (edges_.backing == nullptr || at >= edges_.backing->size());
    if (run.kind != RunKind::zero && !behind) co_return false;
    done += run.length;
  }
  co_return true;
}

Task<> Image::write_zero_data(Range range) {
  PooledBuffer zeroes(home_->buffers, std::min<std::uint64_t>(range.length, zeroes_max));
  std::ranges::fill(zeroes.bytes(), std::byte{0});
  while (!range.empty()) {
    const std::uint64_t n = std::min<std::uint64_t>(range.length, zeroes.size());
    const ConstBuffers list(std::as_bytes(zeroes.bytes().first(n)));
    CO_TRY(const std::uint64_t written, co_await write_some(range.offset, list));
    range = {range.offset + written, range.length - written};
  }
  co_return ok;
}

Task<> Image::write_zeroes(Range range, graph::ZeroFlags flags) {
  return tell(zero_range(range, flags));
}

Task<> Image::discard(Range range) { return tell(discard_range(range)); }

Task<> Image::zero_range(Range range, graph::ZeroFlags flags) {
  if (health_.failed()) co_return std::unexpected(health_.failure_found());
  if (header_.data_file_is_raw()) {  // L-6: it can be read without us
    CO_CHECK(co_await begin_writing());
    flags.fua = false;
    co_return co_await edges_.data->write_zeroes(range, flags);
  }
  if (header_.version < 3 && (edges_.backing != nullptr || !flags.may_unmap)) {
    co_return failure(Errc::not_supported, "version 2 has no zero clusters");
  }
  const Parts parts = split(range, geometry().subcluster_size(), size());
  if (flags.no_fallback) {  // Z-5: before anything is changed
    if (!flags.may_unmap && !edges_.data->limits().native_zeroes) {
      co_return failure(Errc::not_supported, "space could be reserved only by writing to it");
    }
    for (const Range& part : {parts.head, parts.tail}) {
      if (part.empty()) continue;
      CO_TRY(const bool zero, at_guest(co_await rest_reads_zero(part), part.offset));
      if (!zero) co_return failure(Errc::not_supported, "zeroes would have to be written");
    }
  }
  CO_CHECK(co_await begin_writing());
  for (const Range& part : {parts.head, parts.tail}) {
    if (!part.empty()) CO_CHECK(co_await zero_part(part, flags));
  }
  if (!parts.middle.empty()) {
    CO_CHECK(co_await zero_whole(parts.middle, ZeroKind::write_zeroes, flags));
  }
  co_return at_guest(co_await relieve(), range.offset);
}

// Does what lies in the same subclusters as `part`, and not in it, read as zero?
Task<bool> Image::rest_reads_zero(Range part) {
  const Range wide = part.widened(geometry().subcluster_size());
  CO_TRY(const bool before, co_await reads_zero({wide.offset, part.offset - wide.offset}));
  if (!before) co_return false;
  co_return co_await reads_zero({part.end(), wide.end() - part.end()});
}

// Z-6: a part of one subcluster, or of two neighbours.
Task<> Image::zero_part(Range part, graph::ZeroFlags flags) {
  const Range wide = part.widened(geometry().subcluster_size());
  if (header_.version >= 3) {
    const auto claim =
        co_await changes_.claim(wide.widened(geometry().cluster_size()), Hold::exclusive);
    CO_TRY(const bool zero, at_guest(co_await rest_reads_zero(part), part.offset));
    if (zero) {
      co_return at_guest(co_await zero_claimed(wide, ZeroKind::write_zeroes, flags), part.offset);
    }
  }
  co_return co_await write_zero_data(part);
}

// Z-3, Z-7
Task<> Image::discard_range(Range range) {
  if (health_.failed()) co_return std::unexpected(health_.failure_found());
  if (header_.data_file_is_raw()) {
    CO_CHECK(co_await begin_writing());
    co_return co_await edges_.data->discard(range);
  }
  if (header_.version < 3 && edges_.backing != nullptr) {
    co_return failure(Errc::not_supported, "version 2 can't hide what lies below");
  }
  const Parts parts = split(range, geometry().cluster_size(), size());
  if (parts.middle.empty()) co_return ok;
  CO_CHECK(co_await begin_writing());
  graph::ZeroFlags flags;
  flags.may_unmap = true;
  CO_CHECK(co_await zero_whole(parts.middle, ZeroKind::discard, flags));
  co_return at_guest(co_await relieve(), range.offset);
}

// Whole subclusters. Slice by slice, so that a large request keeps nobody waiting for long.
Task<> Image::zero_whole(Range range, ZeroKind kind, graph::ZeroFlags flags) {
  while (!range.empty()) {
    const std::uint64_t end = std::min(range.end(), active_.slice_end(range.offset));
    const Range piece{range.offset, end - range.offset};
    {
      const auto claim =
          co_await changes_.claim(piece.widened(geometry().cluster_size()), Hold::exclusive);
      CO_CHECK(co_await zero_claimed(piece, kind, flags));
    }
    range = {end, range.end() - end};
  }
  co_return ok;
}

// Requires: the clusters are claimed.
Task<> Image::zero_claimed(Range range, ZeroKind kind, graph::ZeroFlags flags) {
  while (!range.empty()) {
    const std::uint64_t end = std::min(range.end(), active_.slice_end(range.offset));
    const Range piece{range.offset, end - range.offset};
    CO_CHECK(co_await zero_slice(piece, kind, flags));
    if (kind == ZeroKind::write_zeroes && !flags.may_unmap && rules_.zero_flag) {
      CO_CHECK(at_guest(co_await place_slice(piece, flags), piece.offset));
    }
    range = {end, range.end() - end};
  }
  co_return ok;
}

// What an entry has to become; nothing when it may stay.
std::optional<Cluster> Image::zeroed(const Cluster& old, std::uint32_t bits, ZeroKind kind,
                                     graph::ZeroFlags flags) const {
  const bool whole = bits == all_bits(geometry());
  const bool placed = old.compressed || old.has_host;
  const bool shows_zero =
      !old.compressed && (bits & (old.data | (edges_.backing != nullptr ? ~old.zero : 0))) == 0;
  const bool gives_back = flags.may_unmap && whole && !options_.discard_no_unref;
  if (kind == ZeroKind::discard && !placed) return std::nullopt;
  if (shows_zero && !(gives_back && placed)) return std::nullopt;
  Cluster now;
  if (!whole) {
    now = old;
    now.data &= ~bits;
    now.zero |= bits;
    return now;
  }
  if (rules_.zero_flag) now.zero = all_bits(geometry());
  if (old.has_host && old.copied && !gives_back) {
    now.has_host = now.copied = true;
    now.host = old.host;
  }
  return now;
}

// Requires: all in one slice.
Task<> Image::zero_slice(Range range, ZeroKind kind, graph::ZeroFlags flags) {
  const std::uint64_t unit = geometry().cluster_size();
  const std::uint64_t first = geometry().cluster_start(range.offset);
  CO_TRY(const std::uint64_t entry, active_.l1_entry(range.offset));
  if ((entry & offset_mask) == 0 && (edges_.backing == nullptr || kind == ZeroKind::discard)) {
    co_return ok;
  }
  CO_CHECK(at_guest(co_await own_l2(range.offset), range.offset));
  CO_TRY(const TableCache::Ref slice, at_guest(co_await active_.slice(range.offset), range.offset));
  std::vector<Range> as_data;  // parts of compressed clusters
  for (std::uint64_t at = first; at < range.end(); at += unit) {
    auto old = decode(active_.load(*slice, at), rules_, at);
    if (!old) co_return std::unexpected(health_.corrupt(old.error(), at));
    const std::uint64_t from = std::max(at, range.offset);
    const std::uint64_t to = std::min(at + unit, range.end());
    const std::uint32_t bits = covered({from - at, to - from}, geometry());
    if (old->compressed && bits != all_bits(geometry())) {
      as_data.push_back({from, to - from});
      continue;
    }
    const std::optional<Cluster> now = zeroed(*old, bits, kind, flags);
    if (!now) continue;
    active_.store(*slice, at, encode(*now, rules_));
    if (!now->has_host) free_cluster(*old, FreedBy::request);
  }
  for (const Range& part : as_data) CO_CHECK(co_await write_zeroes_claimed(part));
  co_return ok;
}

// Z-4: whoever writes there later must not find the file full. Requires: all in one slice, and it
// reads as zero.
Task<> Image::place_slice(Range range, graph::ZeroFlags flags) {
  const std::uint64_t unit = geometry().cluster_size();
  const Range wide = range.widened(unit);
  CO_CHECK(co_await own_l2(range.offset));
  CO_TRY(const TableCache::Ref slice, co_await active_.slice(range.offset));
  Range unplaced{wide.offset, 0};  // clusters before `at`
  for (std::uint64_t at = wide.offset; at < wide.end(); at += unit) {
    auto cluster = decode(active_.load(*slice, at), rules_, at);
    if (!cluster) co_return std::unexpected(health_.corrupt(cluster.error(), at));
    if (!cluster->has_host) {
      unplaced.length += unit;
      continue;
    }
    CO_CHECK(co_await give_places(*slice, unplaced, range, flags));
    unplaced = {at + unit, 0};
    if (cluster->copied) continue;
    // a part of a cluster that a snapshot has, too
    const std::uint64_t from = std::max(at, range.offset);
    CO_CHECK(co_await write_zeroes_claimed({from, std::min(at + unit, range.end()) - from}));
  }
  co_return co_await give_places(*slice, unplaced, range, flags);
}

// Gives each of these clusters a place. Requires: they have none, and are described by `slice`;
// `zeroed` of them reads as zero.
Task<> Image::give_places(TableCache::Slice& slice, Range clusters, Range zeroed,
                          graph::ZeroFlags flags) {
  const std::uint64_t unit = geometry().cluster_size();
  while (!clusters.empty()) {
    CO_TRY(const HostRun run, co_await take_place(clusters, flags));
    for (std::uint64_t done = 0; done < run.length; done += unit) {
      const std::uint64_t at = clusters.offset + done;
      auto cluster = decode(active_.load(slice, at), rules_, at);
      if (!cluster) co_return std::unexpected(health_.corrupt(cluster.error(), at));
      const std::uint64_t from = std::max(at, zeroed.offset);
      cluster->zero |= covered({from - at, std::min(at + unit, zeroed.end()) - from}, geometry());
      cluster->has_host = cluster->copied = true;
      cluster->host = run.offset + done;
      active_.store(slice, at, encode(*cluster, rules_));
    }
    clusters = {clusters.offset + run.length, clusters.length - run.length};
  }
  co_return ok;
}

// Host clusters for the first ones of `guest`, with their space.
Task<HostRun> Image::take_place(Range guest, graph::ZeroFlags flags) {
  if (edges_.data != edges_.file) {
    HostRun same;
    same.offset = guest.offset;
    same.length = guest.length;
    co_await keep_data(guest);
    const Range there{guest.offset, std::min(guest.length, align_up(size(), 512) - guest.offset)};
    CO_CHECK(co_await reserve(there, flags));
    co_return same;
  }
  CO_TRY(const HostRun run, co_await allocate(guest.length >> geometry().cluster_bits));
  Result<> reserved = co_await reserve({run.offset, run.length}, flags);
  if (reserved) co_return run;
  co_await refcounts_.release(run);
  co_return std::unexpected(std::move(reserved).error());
}

// Space of the medium; or, where only the place matters, a file that is long enough.
Task<> Image::reserve(Range host, graph::ZeroFlags flags) {
  if (!flags.place_only) co_return co_await edges_.data->write_zeroes(host);
  if (host.end() <= edges_.data->size()) co_return ok;
  const std::uint64_t last = std::min<std::uint64_t>(host.length, 512);
  co_return co_await edges_.data->write_zeroes({host.end() - last, last});
}

// Requires: the clusters are claimed.
Task<> Image::write_zeroes_claimed(Range range) {
  PooledBuffer zeroes(home_->buffers, std::min<std::uint64_t>(range.length, zeroes_max));
  std::ranges::fill(zeroes.bytes(), std::byte{0});
  while (!range.empty()) {
    const std::uint64_t n = std::min<std::uint64_t>(range.length, zeroes.size());
    const ConstBuffers list(std::as_bytes(zeroes.bytes().first(n)));
    CO_TRY(const std::uint64_t written, co_await write_planned(range.offset, list));
    range = {range.offset + written, range.length - written};
  }
  co_return ok;
}

}  // namespace formats::qcow2
