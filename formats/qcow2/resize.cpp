// resize.cpp - a disk becomes longer or shorter. No mapping changes meanwhile, and the header tells
// of the new size and the new L1 table at once.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "formats/qcow2/image.h"

namespace formats::qcow2 {
namespace {

using Hold = graph::RequestTracker::Hold;
constexpr Range everything{0, std::numeric_limits<std::uint64_t>::max()};

}  // namespace

Task<> Image::resize(std::uint64_t new_size) { return tell(resize_checked(new_size)); }

Task<> Image::resize_checked(std::uint64_t new_size) {
  if (health_.failed()) co_return std::unexpected(health_.failure_found());
  if (new_size == size()) co_return ok;
  if (new_size > geometry().size_max()) {
    co_return std::unexpected(health_.fault(
        Errc::invalid_argument,
        fmt::format("a disk of {} bytes is too large for clusters of {}, the most is {}", new_size,
                    geometry().cluster_size(), geometry().size_max())));
  }
  if (header_.version < 3 && !snapshots_.empty()) {
    co_return std::unexpected(
        health_.fault(Errc::not_supported, "a version 2 image with snapshots can't be resized"));
  }
  CO_CHECK(check_bitmaps_fit(new_size));
  CO_CHECK(co_await begin_writing());
  const auto alone = co_await go_alone();
  const auto claim = co_await changes_.claim(everything, Hold::exclusive);
  CO_CHECK(co_await settle());
  if (new_size < size()) co_return co_await shrink(new_size);
  co_return co_await grow(new_size);
}

// What is new reads as zeroes: the rest of the last cluster may hold anything, and the layer below
// may be longer than the disk was (B-2).
Task<> Image::grow(std::uint64_t new_size) {
  const std::uint64_t old_size = size();
  const std::uint64_t entries = geometry().l1_entries(new_size);
  if (entries > active_.entries()) CO_CHECK(co_await grow_l1(entries));
  header_.size = new_size;
  Result<> done = co_await zero_new(old_size, new_size);
  if (done) done = co_await settle();
  if (done) done = co_await write_header();
  if (done) done = co_await edges_.file->flush();
  if (!done) {
    header_.size = old_size;
    co_return done;
  }
  if (edges_.data != edges_.file && header_.data_file_is_raw()) {  // L-6
    CO_CHECK(co_await edges_.data->resize(new_size));
  }
  node_.refresh_size();
  co_return ok;
}

// Requires: everything is claimed.
Task<> Image::zero_new(std::uint64_t old_size, std::uint64_t new_size) {
  const std::uint64_t cluster_end =
      std::min(align_up(old_size, geometry().cluster_size()), new_size);
  std::uint64_t end = cluster_end;
  if (edges_.backing != nullptr) {
    end = std::max(end, std::min(edges_.backing->size(), new_size));
  }
  if (end <= old_size) co_return ok;
  const Range tail{old_size, cluster_end - old_size};
  if (!tail.empty()) {
    CO_TRY(const bool zero, co_await reads_zero(tail));
    if (!zero) CO_CHECK(co_await write_zeroes_claimed(tail));
  }
  graph::ZeroFlags flags;
  flags.may_unmap = true;
  const Range rest = Range{cluster_end, end - cluster_end};
  if (rest.empty()) co_return ok;
  if (header_.version < 3) co_return co_await write_zeroes_claimed(rest);
  co_return co_await zero_claimed(rest.widened(geometry().cluster_size()), ZeroKind::write_zeroes,
                                  flags);
}

// A longer table at a place of its own; the old one is freed once the header has told of it.
Task<> Image::grow_l1(std::uint64_t entries) {
  if (edges_.file->is_watched())
    co_await edges_.file->event(graph::DebugEvent::l1_grow_alloc_table);
  CO_TRY(const HostRun run, co_await refcounts_.allocate_table(geometry().clusters(entries * 8)));
  L1Table longer = active_.table();
  longer.entries.resize(entries);
  longer.offset = run.offset;
  const std::vector<Be<std::uint64_t>> raw(longer.entries.begin(), longer.entries.end());
  const ConstBuffers list(std::as_bytes(std::span(raw)));
  if (edges_.file->is_watched())
    co_await edges_.file->event(graph::DebugEvent::l1_grow_write_table);
  Result<> done = co_await edges_.file->write(run.offset, list);
  if (!done) {
    co_await refcounts_.release(run);
    co_return done;
  }
  refcounts_.freeze();
  CO_CHECK(co_await write_refcounts());
  CO_CHECK(co_await edges_.file->flush());
  const Header before = header_;
  header_.l1_table_offset = run.offset;
  header_.l1_size = static_cast<std::uint32_t>(entries);
  if (edges_.file->is_watched()) {
    co_await edges_.file->event(graph::DebugEvent::l1_grow_activate_table);
  }
  done = co_await write_header();
  if (done) done = co_await edges_.file->flush();
  if (!done) {  // nobody knows which one the header tells of: both stay
    header_ = before;
    co_return done;
  }
  const Range old{active_.table().offset, active_.entries() * 8};
  metadata_.remove(old);
  metadata_.add({run.offset, entries * 8});
  active_.set_table(std::move(longer));
  if (!old.empty()) free_later(old.widened(geometry().cluster_size()), FreedBy::other);
  co_return ok;
}

// The clusters behind the new end are given back, with the L2 tables that describe nothing else;
// the L1 table keeps its length, it may be wanted again.
Task<> Image::shrink(std::uint64_t new_size) {
  const std::uint64_t old_size = size();
  header_.size = new_size;
  Result<> done = co_await write_header();
  if (done) done = co_await edges_.file->flush();
  if (!done) {
    header_.size = old_size;
    co_return done;
  }
  node_.refresh_size();
  CO_CHECK(co_await unlink_behind(new_size, old_size));
  if (edges_.data != edges_.file && header_.data_file_is_raw()) {
    CO_CHECK(co_await edges_.data->resize(new_size));
  }
  CO_CHECK(co_await settle());
  co_return co_await cut_tail();
}

// Requires: the L2 table of `guest` is ours alone and describes nothing.
void Image::drop_l2(std::uint64_t guest) {
  const std::uint64_t index = geometry().l1_index(guest);
  const std::uint64_t table = active_.entry(index) & offset_mask;
  active_.set_entry(index, 0);
  l1_generation_ = generation_;
  free_later({table, geometry().cluster_size()}, FreedBy::other);
}

// The file ends with its last cluster that is used. Requires: nothing waits to be freed, and nobody
// allocates.
Task<> Image::cut_tail() {
  if (!edges_.file->node().can_grow()) co_return ok;
  CO_TRY(const std::uint64_t end, co_await refcounts_.used_end());
  const std::uint64_t size = edges_.file->size();
  // where counts are wrong nothing is lost for the sake of space
  if (end >= size || metadata_.hits({end, size - end})) co_return ok;
  const Result<> cut = co_await edges_.file->resize(end);
  if (cut) refcounts_.forget_behind(end);
  co_return ok;  // else the space stays, no more
}

// Requires: everything is claimed. Nobody sees these bytes any more.
Task<> Image::unlink_behind(std::uint64_t new_size, std::uint64_t old_size) {
  const std::uint64_t unit = geometry().cluster_size();
  for (std::uint64_t at = align_up(new_size, unit); at < old_size;) {
    const std::uint64_t end = std::min(active_.slice_end(at), align_up(old_size, unit));
    CO_TRY(const std::uint64_t entry, active_.l1_entry(at));
    if ((entry & offset_mask) != 0) {
      // a table that a snapshot has, too, gets a copy
      CO_CHECK(co_await own_l2(at));
      CO_TRY(const TableCache::Ref slice, co_await active_.slice(at));
      for (; at < end; at += unit) {
        auto old = decode(active_.load(*slice, at), rules_, at);
        if (!old) co_return std::unexpected(health_.corrupt(old.error(), at));
        if (active_.load(*slice, at) == L2Entry()) continue;
        active_.store(*slice, at, L2Entry());
        free_cluster(*old, FreedBy::request);
      }
      const std::uint64_t coverage = geometry().l2_coverage();
      const bool is_last = is_aligned(end, coverage) || end >= old_size;
      if (is_last && align_down(end - 1, coverage) >= new_size) drop_l2(end - 1);
      CO_CHECK(co_await relieve());
    }
    at = end;
  }
  co_return ok;
}

}  // namespace formats::qcow2
