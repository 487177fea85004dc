#include "formats/qcow2/refcounts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

#include "formats/qcow2/refcount_block.h"

namespace formats::qcow2 {
namespace {

using graph::DebugEvent;

constexpr std::size_t slice_max = 4096;

}  // namespace

Refcounts::Refcounts(graph::Edge& file, const Geometry& geometry, Health& health,
                     MetadataMap& metadata, std::size_t cache_bytes)
    : file_(file),
      geometry_(geometry),
      health_(health),
      metadata_(metadata),
      blocks_(file, std::min<std::size_t>(geometry.cluster_size(), slice_max), cache_bytes,
              DebugEvent::refblock_load, DebugEvent::refblock_update_part) {}

Task<> Refcounts::open(const Header& header) {
  table_offset_ = header.refcount_table_offset;
  table_clusters_ = header.refcount_table_clusters;
  const std::uint64_t bytes = table_clusters_ << geometry_.cluster_bits;
  if (file_.is_watched()) co_await file_.event(DebugEvent::reftable_load);
  const std::uint64_t size = file_.size();
  if (!Range{table_offset_, bytes}.lies_within(size)) {
    // the last cluster of a file may be cut short; a table that was never written is no table
    if (table_offset_ >= size) {
      co_return std::unexpected(health_.corrupt(
          fmt::format("refcount table at {:#x} lies behind the end of the file of {} bytes",
                      table_offset_, size)));
    }
  }
  Buffer raw(align_up(bytes, Buffer::alignment));
  std::ranges::fill(raw.bytes(), std::byte{0});
  const Buffers list(raw.bytes().first(std::min(bytes, size - table_offset_)));
  CO_CHECK(co_await file_.read(table_offset_, list));
  table_.resize(bytes / 8);
  for (std::size_t i = 0; i < table_.size(); ++i) {
    Be<std::uint64_t> entry;
    std::memcpy(&entry, raw.data() + i * 8, sizeof(entry));
    table_[i] = entry;
  }
  while (!table_.empty() && table_.back() == 0) table_.pop_back();
  table_.resize(bytes / 8);
  grows_ = file_.node().can_grow();
  fresh_from_ = grows_ ? geometry_.clusters(size) : ~std::uint64_t{0};
  co_return ok;
}

std::uint64_t Refcounts::limit() const {
  if (!grows_) return file_.size() >> geometry_.cluster_bits;
  return host_offset_max >> geometry_.cluster_bits;
}

std::uint64_t Refcounts::slice_counts() const {
  return (blocks_.slice_size() * 8) >> geometry_.refcount_order;
}

bool Refcounts::has_block(std::uint64_t cluster) const {
  const std::uint64_t index = cluster / geometry_.refcount_block_entries();
  return index < table_.size() && table_[index] != 0;
}

std::uint64_t Refcounts::slice_host(std::uint64_t cluster) const {
  const std::uint64_t entries = geometry_.refcount_block_entries();
  return table_[cluster / entries] + cluster % entries / slice_counts() * blocks_.slice_size();
}

// Requires: there is a block.
Task<Refcounts::Place> Refcounts::place_of(std::uint64_t cluster) {
  const std::uint64_t block = table_[cluster / geometry_.refcount_block_entries()];
  if ((block & refcount_table_reserved_mask) != 0 || !geometry_.is_cluster_aligned(block) ||
      block > host_offset_max) {
    co_return std::unexpected(health_.corrupt(
        fmt::format("refcount table entry {} points to {:#x}, which is no place for a block",
                    cluster / geometry_.refcount_block_entries(), block)));
  }
  Place place;
  const std::uint64_t host = slice_host(cluster);
  CO_TRY(place.slice, co_await blocks_.get(host));
  place.index = cluster % slice_counts();
  co_return std::move(place);
}

std::uint64_t Refcounts::count_at(const Place& place) const {
  return get_refcount(place.slice->bytes(), geometry_.refcount_order, place.index);
}

void Refcounts::set_count(const Place& place, std::uint64_t count) {
  set_refcount(blocks_.change(*place.slice), geometry_.refcount_order, place.index, count);
}

Task<std::uint64_t> Refcounts::get(std::uint64_t host) {
  const std::uint64_t cluster = host >> geometry_.cluster_bits;
  if (!has_block(cluster)) co_return std::uint64_t{0};
  CO_TRY(const Place place, co_await place_of(cluster));
  co_return count_at(place);
}

Task<std::uint64_t> Refcounts::used_end() {
  const std::uint64_t entries = geometry_.refcount_block_entries();
  std::uint64_t cluster = table_.size() * entries;
  while (cluster > 0) {
    if (!has_block(cluster - 1)) {
      cluster = align_down(cluster - 1, entries);
      continue;
    }
    CO_TRY(const Place place, co_await place_of(cluster - 1));
    const std::uint64_t slice = cluster - 1 - place.index;  // its first cluster
    for (; cluster > slice; --cluster) {
      const std::uint64_t index = cluster - 1 - slice;
      if (get_refcount(place.slice->bytes(), geometry_.refcount_order, index) != 0) {
        co_return cluster << geometry_.cluster_bits;
      }
    }
  }
  co_return std::uint64_t{0};
}

void Refcounts::forget_behind(std::uint64_t end) {
  if (grows_) fresh_from_ = std::min(fresh_from_, end >> geometry_.cluster_bits);
}

// A cluster that counts as free and holds a table: the counts are wrong (QF-10, QR-4).
Result<> Refcounts::check_free(std::uint64_t cluster) {
  const Range range{cluster << geometry_.cluster_bits, geometry_.cluster_size()};
  if (cluster != 0 && !metadata_.hits(range)) return ok;
  return std::unexpected(health_.corrupt(
      fmt::format("the cluster at {:#x} holds metadata and counts as free", range.offset)));
}

HostRun Refcounts::taken(std::uint64_t cluster, std::uint64_t clusters) {
  HostRun run;
  run.offset = cluster << geometry_.cluster_bits;
  run.length = clusters << geometry_.cluster_bits;
  run.fresh = cluster >= fresh_from_;
  if (grows_) fresh_from_ = std::max(fresh_from_, cluster + clusters);
  if (cluster <= free_from_) free_from_ = std::max(free_from_, cluster + clusters);
  return run;
}

// The first free clusters of the slice that counts `cluster`, taken at once; `cluster` moves on to
// the next slice where there are none.
Task<std::optional<HostRun>> Refcounts::take_in_slice(std::uint64_t& cluster,
                                                      std::uint64_t wanted) {
  CO_TRY(const Place place, co_await place_of(cluster));
  const std::uint64_t counts = slice_counts();
  const std::uint64_t base = cluster - place.index;
  const std::uint64_t end = std::min(counts, limit() > base ? limit() - base : 0);
  const auto bytes = place.slice->bytes();
  const auto is_free = [&](std::uint64_t index) {
    return get_refcount(bytes, geometry_.refcount_order, index) == 0;
  };
  std::uint64_t first = place.index;
  while (first < end && !is_free(first)) ++first;
  if (cluster <= free_from_) free_from_ = base + std::min(first, counts);  // all before is used
  if (first >= end) {
    cluster = base + counts;
    co_return std::nullopt;
  }
  std::uint64_t n = 0;
  while (n < wanted && first + n < end && is_free(first + n)) {
    // the first one of a run on the border of the known-zero area ends there: a run is one or the
    // other
    if (n > 0 && base + first + n == fresh_from_) break;
    CO_CHECK(check_free(base + first + n));
    ++n;
  }
  const std::span<std::byte> changed = blocks_.change(*place.slice);
  for (std::uint64_t i = 0; i < n; ++i) {
    set_refcount(changed, geometry_.refcount_order, first + i, 1);
  }
  co_return taken(base + first, n);
}

// `wanted` free clusters in a row from `cluster` on, as far as there are blocks; else `cluster` is
// where to look next.
Task<std::optional<HostRun>> Refcounts::take_all(std::uint64_t& cluster, std::uint64_t wanted) {
  std::vector<Place> places;
  std::uint64_t start = cluster;
  while (places.size() < wanted) {
    const std::uint64_t next = start + places.size();
    if (next >= limit() || !has_block(next)) {
      cluster = next + 1;
      co_return std::nullopt;
    }
    CO_TRY(Place place, co_await place_of(next));
    if (count_at(place) != 0) {
      start = next + 1;
      places.clear();
      continue;
    }
    places.push_back(std::move(place));
  }
  cluster = start;
  // somebody may have been faster while slices were loaded
  for (const Place& place : places) {
    if (count_at(place) != 0) co_return std::nullopt;
  }
  for (std::uint64_t i = 0; i < wanted; ++i) CO_CHECK(check_free(start + i));
  for (const Place& place : places) set_count(place, 1);
  co_return taken(start, wanted);
}

Task<std::optional<HostRun>> Refcounts::find(std::uint64_t wanted, Fit fit) {
  const std::uint64_t entries = geometry_.refcount_block_entries();
  for (std::uint64_t cluster = free_from_; cluster < limit();) {
    const std::uint64_t index = cluster / entries;
    if (index >= table_.size()) break;
    if (table_[index] == 0) {
      cluster = (index + 1) * entries;
      continue;
    }
    std::optional<HostRun> run;
    if (fit == Fit::some) {
      CO_TRY(run, co_await take_in_slice(cluster, wanted));
    } else {
      CO_TRY(run, co_await take_all(cluster, wanted));
    }
    if (run) co_return run;
  }
  co_return std::nullopt;
}

Task<HostRun> Refcounts::allocate_anywhere(std::uint64_t wanted, Fit fit) {
  assert(wanted > 0);
  for (;;) {
    CO_TRY(const std::optional<HostRun> run, co_await find(wanted, fit));
    if (run) co_return *run;
    if (!appending_) break;
    while (appending_) co_await appended_.wait();  // then there is something to be found
  }
  appending_ = true;
  Result<HostRun> run = co_await append(wanted, fit);
  appending_ = false;
  appended_.notify_all();
  co_return run;
}

Task<HostRun> Refcounts::allocate(std::uint64_t wanted_clusters) {
  if (file_.is_watched()) co_await file_.event(DebugEvent::cluster_alloc);
  co_return co_await allocate_anywhere(wanted_clusters, Fit::some);
}

Task<HostRun> Refcounts::allocate_table(std::uint64_t clusters) {
  co_return co_await allocate_anywhere(clusters, Fit::all);
}

// The clusters of new blocks hold zeroes on the medium, wherever they lie.
Task<> Refcounts::prepare_blocks(std::uint64_t start, std::uint64_t count) {
  if (start >= fresh_from_) co_return ok;
  const Range range{start << geometry_.cluster_bits, count << geometry_.cluster_bits};
  co_return co_await file_.write_zeroes(range);
}

// Where no block counts yet (QR-3): the blocks for the new area come first in it, a new table next
// if the old one is too short, then what was wanted. All of it is memory until the flush publishes
// it, in the order in which it can be believed.
Task<HostRun> Refcounts::append(std::uint64_t wanted, Fit fit) {
  const std::uint64_t entries = geometry_.refcount_block_entries();
  std::uint64_t first = table_.size();  // the first block of the area
  if (fit == Fit::some) {
    first = 0;
    while (first < table_.size() && table_[first] != 0) ++first;
    if (first < table_.size()) wanted = std::min(wanted, entries - 1);
  }
  while (first > 0 && first == table_.size() && table_[first - 1] == 0) --first;
  const std::uint64_t start = first * entries;

  std::uint64_t blocks = 1;
  std::uint64_t new_table = 0;  // clusters
  for (;;) {
    const std::uint64_t area = blocks + new_table + wanted;
    const std::uint64_t needed = (area + entries - 1) / entries;
    std::uint64_t table = 0;
    if (first + needed > table_.size()) {
      const std::uint64_t length = std::max(first + needed, table_.size() + table_.size() / 2);
      table = geometry_.clusters(length * 8);
    }
    if (needed == blocks && table == new_table) break;
    blocks = std::max(blocks, needed);
    new_table = std::max(new_table, table);
  }
  if ((new_table << geometry_.cluster_bits) > refcount_table_bytes_max) {
    co_return std::unexpected(
        health_.fault(Errc::no_space, "the refcount table has its full size"));
  }
  const std::uint64_t most = limit();
  std::uint64_t total = blocks + new_table + wanted;
  if (start + total > most) {
    const std::uint64_t overhead = blocks + new_table;
    if (fit == Fit::all || start + overhead + 1 > most) {
      co_return std::unexpected(
          health_.fault(Errc::no_space, "the image file is full and can't grow"));
    }
    wanted = most - start - overhead;
    total = overhead + wanted;
  }
  const Range area{start << geometry_.cluster_bits, total << geometry_.cluster_bits};
  if (metadata_.hits(area)) {
    co_return std::unexpected(health_.corrupt(
        fmt::format("metadata lies behind {:#x}, where nothing is counted", area.offset)));
  }
  CO_CHECK(co_await prepare_blocks(start, blocks));
  // nothing waits from here on, but for slices that are made, not loaded
  if (new_table > 0) {
    left_behind_.push_back({table_offset_, table_clusters_ << geometry_.cluster_bits});
    metadata_.remove(left_behind_.back());
    table_offset_ = (start + blocks) << geometry_.cluster_bits;
    table_clusters_ = new_table;
    table_.resize((new_table << geometry_.cluster_bits) / 8);
    metadata_.add({table_offset_, new_table << geometry_.cluster_bits});
    moved_ = true;
  }
  for (std::uint64_t i = 0; i < blocks; ++i) {
    table_[first + i] = (start + i) << geometry_.cluster_bits;
    metadata_.add({table_[first + i], geometry_.cluster_size()});
    unpublished_.insert(first + i);
  }
  for (std::uint64_t cluster = start; cluster < start + total; ++cluster) {
    Place place;
    place.slice = blocks_.make(slice_host(cluster));
    place.index = cluster % slice_counts();
    set_count(place, 1);
  }
  const bool fresh = start >= fresh_from_;
  HostRun run = taken(start, total);
  run.offset += (blocks + new_table) << geometry_.cluster_bits;
  run.length = wanted << geometry_.cluster_bits;
  run.fresh = fresh;
  co_return run;
}

asio::awaitable<void> Refcounts::release(HostRun run) {
  (void)co_await decrease({run.offset, run.length});
}

Task<> Refcounts::change_one(std::uint64_t cluster, int step) {
  const std::uint64_t host = cluster << geometry_.cluster_bits;
  if (!has_block(cluster)) {
    co_return std::unexpected(health_.corrupt(
        fmt::format("the cluster at {:#x} is referred to, and nothing counts it", host)));
  }
  CO_TRY(const Place place, co_await place_of(cluster));
  const std::uint64_t count = count_at(place);
  if (step > 0 && count == geometry_.refcount_max()) {  // QR-2
    co_return std::unexpected(health_.fault(
        Errc::invalid_argument,
        fmt::format("the cluster at {:#x} has {} references, no more fit into {} bits", host, count,
                    geometry_.refcount_bits())));
  }
  if (count == 0) {
    co_return std::unexpected(health_.corrupt(
        fmt::format("the cluster at {:#x} is referred to and counts as free", host)));
  }
  set_count(place, step > 0 ? count + 1 : count - 1);
  if (step < 0 && count == 1) free_from_ = std::min(free_from_, cluster);
  co_return ok;
}

Task<> Refcounts::increase(Range host) {
  const std::uint64_t first = host.offset >> geometry_.cluster_bits;
  const std::uint64_t end = geometry_.clusters(host.end());
  for (std::uint64_t cluster = first; cluster < end; ++cluster) {
    Result<> done = co_await change_one(cluster, 1);
    if (done) continue;
    while (cluster-- > first) (void)co_await change_one(cluster, -1);
    co_return done;
  }
  co_return ok;
}

Task<> Refcounts::decrease(Range host) {
  const std::uint64_t end = geometry_.clusters(host.end());
  for (std::uint64_t cluster = host.offset >> geometry_.cluster_bits; cluster < end; ++cluster) {
    CO_CHECK(co_await change_one(cluster, -1));
  }
  co_return ok;
}

void Refcounts::freeze() {
  blocks_.freeze();
  publishing_.insert(unpublished_.begin(), unpublished_.end());
  unpublished_.clear();
  moving_ = moving_ || std::exchange(moved_, false);
  if (!wants_publishing()) return;
  frozen_place_ = {table_offset_, static_cast<std::uint32_t>(table_clusters_)};
  frozen_table_ = table_;
}

Task<> Refcounts::write() {
  if (moving_) {
    if (file_.is_watched()) co_await file_.event(DebugEvent::refblock_alloc_write_table);
    std::vector<Be<std::uint64_t>> raw(frozen_table_.begin(), frozen_table_.end());
    const ConstBuffers list(std::as_bytes(std::span(raw)));
    CO_CHECK(co_await file_.write(frozen_place_.offset, list));
  }
  co_return co_await blocks_.write_frozen();
}

std::optional<Refcounts::Table> Refcounts::moved_to() const {
  if (!moving_) return std::nullopt;
  return frozen_place_;
}

// A table that moves was written whole; else each new entry gets its place.
Task<> Refcounts::publish() {
  if (!moving_) {
    for (const std::uint64_t index : publishing_) {
      if (file_.is_watched()) co_await file_.event(DebugEvent::refblock_alloc_hookup);
      const Be<std::uint64_t> entry = frozen_table_[index];
      const ConstBuffers list(bytes_of(entry));
      CO_CHECK(co_await file_.write(frozen_place_.offset + index * 8, list));
    }
  }
  co_return ok;
}

void Refcounts::published() {
  publishing_.clear();
  moving_ = false;
}

}  // namespace formats::qcow2
