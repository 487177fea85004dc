#include "formats/qcow2/table_cache.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace formats::qcow2 {

namespace {
constexpr std::size_t run_max = 1 * MiB;  // bytes that are written at once
}

TableCache::TableCache(graph::Edge& file, std::size_t slice_size, std::size_t bytes_max,
                       graph::DebugEvent load_event, graph::DebugEvent update_event)
    : file_(file),
      slice_size_(slice_size),
      bytes_max_(std::max(bytes_max, 4 * slice_size)),
      load_event_(load_event),
      update_event_(update_event) {}

TableCache::~TableCache() = default;

TableCache::Slice* TableCache::find(std::uint64_t host) {
  const auto found = slices_.find(host);
  if (found == slices_.end()) return nullptr;
  Slice& slice = *found->second;
  if (slice.state_ != Slice::State::ready) return nullptr;
  slice.used_ = true;
  return &slice;
}

Task<TableCache::Ref> TableCache::get(std::uint64_t host) {
  assert(is_aligned(host, slice_size_));
  for (;;) {
    const auto found = slices_.find(host);
    if (found == slices_.end()) break;
    const Ref slice = found->second;
    while (slice->state_ == Slice::State::loading) co_await loaded_.wait();
    if (slice->state_ == Slice::State::ready) {
      slice->used_ = true;
      co_return slice;
    }
    // that one failed, or its table is gone: look again
  }
  make_room();
  const Ref slice = std::make_shared<Slice>(host, slice_size_);
  insert(slice);
  Result<> done = co_await load(*slice);
  const bool dropped = slice->state_ == Slice::State::gone;
  slice->state_ = done ? Slice::State::ready : Slice::State::gone;
  slice->written_ = freezes_;
  if (!done && !dropped) {
    clock_.erase(slice->place_);
    slices_.erase(host);
  }
  loaded_.notify_all();
  if (!done) co_return std::unexpected(std::move(done).error());
  co_return slice;  // if dropped: what whoever asked for it still may look at
}

Task<> TableCache::load(Slice& slice) {
  const std::uint64_t size = file_.size();
  const std::uint64_t there =
      slice.host_ < size ? std::min<std::uint64_t>(size - slice.host_, slice_size_) : 0;
  if (there == 0) co_return ok;
  if (file_.is_watched()) co_await file_.event(load_event_);
  const Buffers list(std::span(slice.bytes_).first(there));
  co_return co_await file_.read(slice.host_, list);
}

void TableCache::insert(const Ref& slice) {
  slices_.emplace(slice->host_, slice);
  slice->place_ = clock_.insert(clock_.end(), slice.get());
  if (filled_) filled_();
}

TableCache::Ref TableCache::make(std::uint64_t host) {
  assert(is_aligned(host, slice_size_));
  if (Slice* old = find(host)) return slices_.at(old->host_);
  make_room();
  const Ref slice = std::make_shared<Slice>(host, slice_size_);
  slice->state_ = Slice::State::ready;
  insert(slice);
  return slice;
}

std::span<std::byte> TableCache::change(Slice& slice) {
  assert(slice.state_ == Slice::State::ready);
  if (slice.frozen_dirty_ && slice.frozen_.empty()) {
    std::vector<std::byte> copy = slice.bytes_;
    slice.frozen_ = std::exchange(slice.bytes_, std::move(copy));
  }
  if (!slice.dirty_) {
    slice.dirty_ = true;
    dirty_.emplace(slice.host_, slices_.at(slice.host_));
  }
  return slice.bytes_;
}

void TableCache::drop(Range range) {
  for (std::uint64_t host = slice_start(range.offset); host < range.end(); host += slice_size_) {
    const auto found = slices_.find(host);
    if (found == slices_.end()) continue;
    Slice& slice = *found->second;
    if (slice.dirty_) dirty_.erase(host);
    slice.dirty_ = slice.frozen_dirty_ = false;
    // who loads it just now finds out
    slice.state_ = Slice::State::gone;
    clock_.erase(slice.place_);
    slices_.erase(found);
  }
}

// Second chance: the hand passes over what was used since it came by last, what is held, and what
// has to be written.
void TableCache::make_room() {
  std::size_t steps = 2 * clock_.size();
  while (bytes() + slice_size_ > bytes_max_ && steps-- > 0) {
    Slice* slice = clock_.front();
    const Ref& held = slices_.at(slice->host_);
    const bool busy = slice->state_ == Slice::State::loading || slice->dirty_ ||
                      slice->frozen_dirty_ || held.use_count() > 1;
    if (!busy && !slice->used_) {
      clock_.pop_front();
      slices_.erase(slice->host_);
      continue;
    }
    slice->used_ = false;
    clock_.splice(clock_.end(), clock_, clock_.begin());
  }
}

bool TableCache::forget_unused() {
  bool more = false;
  for (auto each = clock_.begin(); each != clock_.end();) {
    Slice* slice = *each++;
    const Ref& held = slices_.at(slice->host_);
    const bool busy = slice->state_ == Slice::State::loading || slice->dirty_ ||
                      slice->frozen_dirty_ || held.use_count() > 1;
    if (!busy && !slice->used_) {
      clock_.erase(slice->place_);
      slices_.erase(slice->host_);
    } else {
      // one that is to be written is looked at again when it was
      more = more || !slice->dirty_;
      slice->used_ = false;
    }
  }
  return more;
}

bool TableCache::freeze() {
  ++freezes_;
  frozen_.clear();
  for (const auto& [host, slice] : dirty_) {
    slice->frozen_dirty_ = true;
    slice->frozen_.clear();
    frozen_.push_back(slice);
  }
  std::ranges::sort(frozen_, {}, [](const Ref& slice) { return slice->host_; });
  return !frozen_.empty();
}

// Neighbours in the file, as one write.
Task<> TableCache::write_run(std::span<const Ref> run) {
  if (file_.is_watched()) co_await file_.event(update_event_);
  ConstBuffers list;
  for (const Ref& slice : run) {
    // change() leaves these very bytes to frozen_, should it come meanwhile
    list.add(std::span<const std::byte>(slice->frozen_.empty() ? slice->bytes_ : slice->frozen_));
  }
  Result<> done = co_await file_.write(run.front()->host_, list);
  for (const Ref& slice : run) {
    const bool changed = !slice->frozen_.empty();
    const bool dropped = !slice->frozen_dirty_;
    slice->frozen_.clear();
    slice->frozen_dirty_ = false;
    if (!done || changed || dropped) continue;
    slice->dirty_ = false;
    slice->written_ = freezes_;
    dirty_.erase(slice->host_);
  }
  co_return done;
}

Task<> TableCache::write_frozen() {
  const std::vector<Ref> all = std::exchange(frozen_, {});
  Result<> first = ok;
  for (std::size_t begin = 0; begin < all.size();) {
    if (!all[begin]->frozen_dirty_) {  // its table is gone
      ++begin;
      continue;
    }
    std::size_t end = begin + 1;
    while (end < all.size() && (end - begin) * slice_size_ < run_max && all[end]->frozen_dirty_ &&
           all[end]->host_ == all[end - 1]->host_ + slice_size_) {
      ++end;
    }
    Result<> done = co_await write_run(std::span(all).subspan(begin, end - begin));
    if (!done && first) first = std::move(done);
    begin = end;
  }
  co_return first;
}

}  // namespace formats::qcow2
