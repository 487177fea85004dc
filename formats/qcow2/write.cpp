// write.cpp - writing: in place where nobody else refers to the cluster, else to new clusters, with
// what surrounds the guest's bytes copied beside them. A write that changes the mapping claims its
// guest clusters; it links them when their bytes have been written, never before (W-1 to W-6).
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <utility>

#include "formats/qcow2/compress.h"
#include "formats/qcow2/image.h"

namespace formats::qcow2 {
namespace {

using graph::DebugEvent;

constexpr std::uint64_t chunk_max = 16 * MiB;  // of a write that is planned at once

// The bits of the subclusters that `range`, bytes of one cluster, touches.
std::uint32_t touched(Range range, const Geometry& geometry) {
  const auto first = static_cast<unsigned>(range.offset / geometry.subcluster_size());
  const auto last = static_cast<unsigned>((range.end() - 1) / geometry.subcluster_size());
  const std::uint64_t up_to_last = (std::uint64_t{2} << last) - 1;
  return static_cast<std::uint32_t>(up_to_last & ~((std::uint64_t{1} << first) - 1));
}

}  // namespace

// What a write does to the clusters from `start` on.
struct Image::Plan {
  enum class Kind : std::uint8_t {
    in_place,  // all subclusters that are touched have data, and nobody else refers to them
    reuse,     // there is a host cluster, and some of these subclusters have no data in it yet
    allocate,  // new host clusters
  };
  Kind kind = Kind::in_place;
  std::uint64_t guest = 0;   // first byte of the write
  std::uint64_t start = 0;   // guest, of the first cluster
  std::vector<Cluster> old;  // what the entries say now
  std::uint64_t length = 0;  // bytes of the write
  Range filled;            // guest bytes that the clusters hold afterwards, the write's and around
  std::uint64_t host = 0;  // of the first cluster
  bool fresh = false;      // it reads as zero
};

// QF-10
Result<> Image::check_overlap(Range host, std::uint64_t guest) {
  if (edges_.data != edges_.file || !metadata_.hits(host)) return ok;
  return std::unexpected(health_.corrupt(
      fmt::format("guest offset {:#x} is mapped to {:#x}, where metadata is", guest, host.offset),
      guest));
}

Task<> Image::write_in_place(Epochs::Pin pin, std::uint64_t host, std::uint64_t guest,
                             const ConstBuffers& data, graph::WriteFlags flags) {
  if (edges_.data->is_watched()) co_await edges_.data->event(DebugEvent::write_aio);
  co_return seen_by_guest(co_await edges_.data->write(host, data, flags), host, guest);
}

// Would the mapping of `guest` survive a crash?
bool Image::is_durable(std::uint64_t guest) {
  if (l1_generation_ > durable_generation_) return false;
  const TableCache::Slice* slice = active_.slice_now(guest);
  return slice != nullptr && !slice->dirty() && slice->written() <= durable_freeze_;
}

Task<> Image::write(std::uint64_t guest, const ConstBuffers& data, graph::WriteFlags flags) {
  if (writing_ && !health_.failed() && !flags.compressed) [[likely]] {
    const auto run = active_.run_now(guest, data.size());
    if (run && *run && (*run)->kind == RunKind::data && (*run)->copied &&
        (*run)->length == data.size() && (!flags.fua || is_durable(guest)) &&
        (edges_.data != edges_.file || !metadata_.hits({(*run)->host, data.size()}))) {
      return write_in_place(epochs_.enter(), (*run)->host, guest, data, flags);
    }
  }
  return tell(write_all(guest, data, flags));
}

Task<> Image::write_all(std::uint64_t guest, const ConstBuffers& data, graph::WriteFlags flags) {
  if (health_.failed()) co_return std::unexpected(health_.failure_found());
  CO_CHECK(co_await begin_writing());
  if (flags.compressed) {
    CO_CHECK(co_await write_compressed(guest, data));
  } else {
    for (std::uint64_t done = 0; done < data.size();) {
      const ConstBuffers rest = data.slice(done, data.size() - done);
      Result<std::uint64_t> written = co_await write_some(guest + done, rest);
      if (!written) {
        Error error = std::move(written).error();
        error.offset = std::max(error.offset, guest + done);
        co_return std::unexpected(std::move(error));
      }
      done += *written;
    }
  }
  if (flags.fua) {
    co_return at_guest(co_await node_.flushes().flush(node_, graph::FlushDepth::disk), guest);
  }
  co_return at_guest(co_await relieve(), guest);
}

// Writes the beginning of `data` and says how much.
Task<std::uint64_t> Image::write_some(std::uint64_t guest, const ConstBuffers& data) {
  {
    Epochs::Pin pin = epochs_.enter();
    CO_TRY(const Run run, at_guest(co_await active_.run(guest, data.size()), guest));
    if (run.kind == RunKind::data && run.copied) {
      CO_CHECK(check_overlap({run.host, run.length}, guest));
      const ConstBuffers part = data.slice(0, run.length);
      CO_CHECK(co_await write_in_place(std::move(pin), run.host, guest, part, {}));
      co_return run.length;
    }
  }
  // W-4: whoever changes the same clusters is waited for
  const std::uint64_t slice_end = active_.slice_end(guest);
  const std::uint64_t end = std::min({guest + data.size(), slice_end, guest + chunk_max});
  const Range wanted = Range{guest, end - guest}.widened(geometry().cluster_size());
  const auto claim = co_await changes_.claim(wanted, graph::RequestTracker::Hold::exclusive);
  const ConstBuffers part = data.slice(0, end - guest);
  co_return co_await write_planned(guest, part);
}

// Requires: the clusters are claimed, and all in one slice.
Task<std::uint64_t> Image::write_planned(std::uint64_t guest, const ConstBuffers& data) {
  CO_CHECK(at_guest(co_await own_l2(guest), guest));
  CO_TRY(Plan plan, at_guest(co_await this->plan(guest, data.size()), guest));
  if (plan.kind == Plan::Kind::allocate) CO_CHECK(at_guest(co_await place(plan), guest));
  const ConstBuffers part = data.slice(0, plan.length);
  Result<> done = check_overlap({plan.host, plan.old.size() << geometry().cluster_bits}, guest);
  if (done) done = co_await put(plan, guest, part);
  if (done && plan.kind != Plan::Kind::in_place) done = co_await link(plan);
  if (!done) {
    if (plan.kind == Plan::Kind::allocate && edges_.data == edges_.file) {  // W-5
      HostRun unused;
      unused.offset = plan.host;
      unused.length = plan.old.size() << geometry().cluster_bits;
      co_await refcounts_.release(unused);
    }
    if (plan.kind == Plan::Kind::in_place) co_return std::unexpected(std::move(done).error());
    co_return std::unexpected(std::move(done).error().at(guest));  // none of it can be seen
  }
  co_return plan.length;
}

// As many clusters as are dealt with in the same way.
Task<Image::Plan> Image::plan(std::uint64_t guest, std::uint64_t length) {
  const Geometry& geometry = header_.geometry;
  const std::uint64_t unit = geometry.cluster_size();
  const std::uint64_t end = guest + length;
  CO_TRY(const TableCache::Ref slice, co_await active_.slice(guest));
  Plan plan;
  plan.guest = guest;
  plan.start = geometry.cluster_start(guest);
  for (std::uint64_t at = plan.start; at < end; at += unit) {
    auto cluster = decode(active_.load(*slice, at), rules_, at);
    if (!cluster) co_return std::unexpected(health_.corrupt(cluster.error(), at));
    const std::uint64_t from = std::max(at, guest);
    const std::uint32_t bits = touched({from - at, std::min(end, at + unit) - from}, geometry);
    Plan::Kind kind = Plan::Kind::allocate;
    if (cluster->has_host && cluster->copied) {
      kind = (bits & ~cluster->data) == 0 ? Plan::Kind::in_place : Plan::Kind::reuse;
    }
    if (plan.old.empty()) {
      plan.kind = kind;
      plan.host = cluster->host;
    }
    const bool next_to =
        kind == Plan::Kind::allocate || cluster->host == plan.host + (at - plan.start);
    if (kind != plan.kind || !next_to) break;
    plan.old.push_back(std::move(*cluster));
  }
  plan.length = std::min(end, plan.start + plan.old.size() * unit) - guest;
  co_return std::move(plan);
}

// New host clusters, or fewer than planned. In an external data file they are where the guest's
// are.
Task<> Image::place(Plan& plan) {
  if (edges_.data != edges_.file) {
    plan.host = plan.start;
    const Range host{plan.host, plan.old.size() << geometry().cluster_bits};
    co_await keep_data(host);
    co_return ok;
  }
  CO_TRY(const HostRun run, co_await allocate(plan.old.size()));
  const std::uint64_t unit = geometry().cluster_size();
  const std::uint64_t clusters = run.length / unit;
  plan.old.resize(clusters);
  plan.length = std::min(plan.length, plan.start + clusters * unit - plan.guest);
  plan.host = run.offset;
  plan.fresh = run.fresh;
  co_return ok;
}

// With room that was freed, if there is no other (design: before it answers no_space).
Task<HostRun> Image::allocate(std::uint64_t clusters) {
  for (;;) {
    Result<HostRun> run = co_await refcounts_.allocate(clusters);
    if (run) co_return run;
    if (run.error().code != Errc::no_space) co_return run;
    CO_TRY(const bool freed, co_await reclaim());
    if (!freed) co_return run;
  }
}

// Writes the guest's bytes, and around them what their subclusters held before.
Task<> Image::put(Plan& plan, std::uint64_t guest, const ConstBuffers& data) {
  plan.filled = filled_range(plan, guest, data.size());
  const Range filled = plan.filled;
  const Range head{filled.offset, guest - filled.offset};
  const Range tail{guest + data.size(), filled.end() - (guest + data.size())};
  PooledBuffer before;
  PooledBuffer behind;
  if (plan.kind != Plan::Kind::in_place) {
    CO_CHECK(co_await fetch_old(plan, head, before));
    CO_CHECK(co_await fetch_old(plan, tail, behind));
  }
  ConstBuffers all;
  all.add(before.bytes());
  all.add(data);
  all.add(behind.bytes());
  const std::uint64_t at = plan.host + (guest - plan.start) - before.size();
  if (edges_.data->is_watched()) {
    if (before.size() + behind.size() > 0) co_await edges_.data->event(DebugEvent::cow_write);
    co_await edges_.data->event(DebugEvent::write_aio);
  }
  co_return seen_by_guest(co_await edges_.data->write(at, all), at, guest - before.size());
}

// The bytes of the guest that the write's clusters hold afterwards: whole subclusters, and of a
// cluster that moves all that have data.
Range Image::filled_range(const Plan& plan, std::uint64_t guest, std::uint64_t length) const {
  const std::uint64_t unit = geometry().subcluster_size();
  const Range filled = Range{guest, length}.widened(unit);
  if (plan.kind != Plan::Kind::allocate) {
    // never bytes of a subcluster that has data: others write to it in place meanwhile
    const auto has_data = [&](const Cluster& cluster, std::uint64_t at) {
      return (cluster.data >> (geometry().in_cluster(at) / unit) & 1) != 0;
    };
    const std::uint64_t from = has_data(plan.old.front(), guest) ? guest : filled.offset;
    const std::uint64_t last = guest + length - 1;
    const std::uint64_t to = has_data(plan.old.back(), last) ? last + 1 : filled.end();
    return {from, to - from};
  }
  std::uint64_t start = filled.offset;
  std::uint64_t end = filled.end();
  const Cluster& first = plan.old.front();
  const Cluster& last = plan.old.back();
  const std::uint64_t last_start = plan.start + (plan.old.size() - 1) * geometry().cluster_size();
  if (first.compressed) start = plan.start;
  if (first.data != 0) {
    start = std::min<std::uint64_t>(
        start, plan.start + static_cast<unsigned>(std::countr_zero(first.data)) * unit);
  }
  if (last.compressed) end = last_start + geometry().cluster_size();
  if (last.data != 0) {
    const auto highest = static_cast<unsigned>(31 - std::countl_zero(last.data));
    end = std::max<std::uint64_t>(end, last_start + (highest + 1) * unit);
  }
  return {start, end - start};
}

// What a reader sees in `range` now. Left empty where the new place says the same already: zeroes.
Task<> Image::fetch_old(const Plan& plan, Range range, PooledBuffer& bytes) {
  if (range.empty()) co_return ok;
  if (plan.fresh) {
    CO_TRY(const bool zero, co_await reads_zero(range));
    if (zero) co_return ok;
  }
  bytes = PooledBuffer(home_->buffers, range.length);
  const std::uint64_t there =
      range.offset < size() ? std::min(range.length, size() - range.offset) : 0;
  const Buffers list(bytes.bytes().first(there));
  std::ranges::fill(bytes.bytes().subspan(there), std::byte{0});
  if (edges_.data->is_watched()) co_await edges_.data->event(DebugEvent::cow_read);
  if (there > 0) CO_CHECK(co_await read_of(active_, range.offset, list));  // fails the write
  if (plan.fresh && is_zero(ConstBuffers(std::as_bytes(bytes.bytes())))) bytes = PooledBuffer();
  co_return ok;
}

// The bytes are there: now they can be seen. Requires: the clusters are claimed.
Task<> Image::link(const Plan& plan) {
  const Geometry& geometry = header_.geometry;
  const std::uint64_t unit = geometry.cluster_size();
  CO_TRY(const TableCache::Ref slice, co_await active_.slice(plan.start));
  const Range filled = plan.filled;
  for (std::size_t i = 0; i < plan.old.size(); ++i) {
    const Cluster& old = plan.old[i];
    const std::uint64_t at = plan.start + i * unit;
    const std::uint64_t from = std::max(at, filled.offset);
    const std::uint64_t to = std::min(at + unit, filled.end());
    const std::uint32_t bits = touched({from - at, to - from}, geometry);
    Cluster now;
    now.has_host = now.copied = true;
    now.host = plan.host + i * unit;
    now.data = bits;
    if (!old.compressed) now.zero = old.zero & ~bits;
    if (plan.kind == Plan::Kind::reuse) now.data |= old.data;
    active_.store(*slice, at, encode(now, rules_));
    if (plan.kind == Plan::Kind::allocate && edges_.data == edges_.file) {
      free_cluster(old, FreedBy::other);
    }
  }
  co_return ok;
}

// An L2 table that describes `guest` and that nobody else refers to.
Task<> Image::own_l2(std::uint64_t guest) {
  CO_TRY(std::uint64_t entry, active_.l1_entry(guest));
  if ((entry & offset_mask) != 0 && (entry & copied_bit) != 0) co_return ok;
  const std::uint64_t index = geometry().l1_index(guest);
  const auto claim = co_await l2_changes_.claim({index, 1}, graph::RequestTracker::Hold::exclusive);
  CO_TRY(entry, active_.l1_entry(guest));
  if ((entry & offset_mask) != 0 && (entry & copied_bit) != 0) co_return ok;
  CO_TRY(const std::uint64_t table, co_await new_l2(entry & offset_mask));
  active_.set_entry(index, table | copied_bit);
  l1_generation_ = generation_;
  if ((entry & offset_mask) != 0) {
    free_later({entry & offset_mask, geometry().cluster_size()}, FreedBy::other);
  }
  co_return ok;
}

// On the medium it says already what it says in memory: nothing, or what the shared one does.
Task<std::uint64_t> Image::new_l2(std::uint64_t old) {
  const std::uint64_t unit = geometry().cluster_size();
  if (edges_.file->is_watched()) co_await edges_.file->event(DebugEvent::l2_alloc_write);
  CO_TRY(const HostRun run, co_await allocate(1));
  const Range place{run.offset, unit};
  Result<> done = ok;
  if (old != 0) {
    PooledBuffer copy(home_->buffers, unit);
    done = co_await copy_l2(old, copy.bytes());
    const ConstBuffers list(std::as_bytes(copy.bytes()));
    if (done) done = co_await edges_.file->write(run.offset, list);
  } else if (!run.fresh) {
    done = co_await edges_.file->write_zeroes(place);
  } else {
    // it is zero already, but for the end of the file, which a table must not lie behind
    const std::array<std::byte, 512> zeroes{};
    const ConstBuffers list{std::span<const std::byte>(zeroes)};
    done = co_await edges_.file->write(place.end() - zeroes.size(), list);
  }
  if (!done) {
    co_await refcounts_.release(run);
    co_return std::unexpected(std::move(done).error());
  }
  metadata_.add(place);
  co_return run.offset;
}

// A table that several refer to is never dirty: what stands in the file is what it says. Whatever
// it maps has several references, too.
Task<> Image::copy_l2(std::uint64_t old, std::span<std::byte> copy) {
  const std::uint64_t size = edges_.file->size();
  const std::uint64_t there = old < size ? std::min<std::uint64_t>(copy.size(), size - old) : 0;
  std::ranges::fill(copy.subspan(there), std::byte{0});
  const Buffers list(copy.first(there));
  if (edges_.file->is_watched()) co_await edges_.file->event(DebugEvent::l2_alloc_cow_read);
  if (there > 0) CO_CHECK(co_await edges_.file->read(old, list));
  for (std::uint64_t i = 0; i < geometry().l2_entries(); ++i) {
    L2Entry entry = load_entry(copy, geometry(), i);
    entry.descriptor &= ~copied_bit;
    store_entry(copy, geometry(), i, entry);
  }
  co_return ok;
}

// W-8: whole clusters, packed one behind the other where they are shorter compressed. What is no
// whole cluster is written as it is; a cluster that ends with the disk is whole.
Task<> Image::write_compressed(std::uint64_t guest, const ConstBuffers& data) {
  const std::uint64_t unit = geometry().cluster_size();
  for (std::uint64_t done = 0; done < data.size();) {
    const std::uint64_t at = guest + done;
    const std::uint64_t n =
        std::min<std::uint64_t>(data.size() - done, unit - geometry().in_cluster(at));
    const ConstBuffers part = data.slice(done, n);
    const bool whole = n == unit || (geometry().is_cluster_aligned(at) && at + n == size());
    bool packed = false;
    if (whole && edges_.data == edges_.file) {
      CO_TRY(packed, at_guest(co_await pack(at, part), at));
    }
    for (std::uint64_t plain = 0; plain < n && !packed;) {
      const ConstBuffers rest = part.slice(plain, n - plain);
      CO_TRY(const std::uint64_t written, co_await write_some(at + plain, rest));
      plain += written;
    }
    done += n;
  }
  co_return ok;
}

// False when the cluster does not become shorter.
Task<bool> Image::pack(std::uint64_t guest, const ConstBuffers& data) {
  const std::uint64_t unit = geometry().cluster_size();
  std::vector<std::byte> cluster(unit);
  copy_bytes(Buffers(std::span(cluster)), data);
  std::optional<std::vector<std::byte>> small;
  std::function<void()> work = [&] { small = compress(header_.compression, cluster); };
  co_await home_->helpers.run(*helpers_, std::move(work));
  if (!small) co_return false;

  const auto claim = co_await changes_.claim({guest, unit}, graph::RequestTracker::Hold::exclusive);
  CO_CHECK(co_await own_l2(guest));
  CO_TRY(const CompressedPlace place, co_await room_for(small->size()));
  const auto entry = encode_compressed(place, rules_);
  Result<> done = ok;
  if (!entry) done = std::unexpected(health_.fault(Errc::no_space, entry.error(), guest));
  const ConstBuffers list{std::span<const std::byte>(*small)};
  if (edges_.file->is_watched()) co_await edges_.file->event(DebugEvent::write_compressed);
  if (done) done = co_await edges_.file->write(place.offset, list);
  if (done) done = co_await link_compressed(guest, *entry);
  if (!done) {
    leave_packed({place.offset, place.length});
    (void)co_await refcounts_.decrease({place.offset, place.length});
    co_return std::unexpected(std::move(done).error());
  }
  co_return true;
}

Task<> Image::link_compressed(std::uint64_t guest, L2Entry entry) {
  CO_TRY(const TableCache::Ref slice, co_await active_.slice(guest));
  auto old = decode(active_.load(*slice, guest), rules_, guest);
  if (!old) co_return std::unexpected(health_.corrupt(old.error(), guest));
  active_.store(*slice, guest, entry);
  free_cluster(*old, FreedBy::other);
  co_return ok;
}

// Behind the last one, as long as that cluster has room and is still ours; each cluster counts
// those that lie in it.
Task<CompressedPlace> Image::room_for(std::uint64_t length) {
  const std::uint64_t unit = geometry().cluster_size();
  while (packing_) co_await packed_.wait();
  packing_ = true;
  Result<CompressedPlace> place = co_await take_room(length, unit);
  packing_ = false;
  packed_.notify_all();
  co_return place;
}

// Some clusters may be free soon: nothing more is packed into them.
void Image::leave_packed(Range host) {
  const Range wide = host.widened(geometry().cluster_size());
  if (wide.overlaps({packed_at_, 1})) packed_at_ = 0;
}

Task<CompressedPlace> Image::take_room(std::uint64_t length, std::uint64_t unit) {
  CompressedPlace place;
  place.length = length;
  const std::uint64_t left = packed_at_ == 0 ? 0 : align_up(packed_at_, unit) - packed_at_;
  if (left >= length) {
    // what is in it may go at any time: then leave_packed() was here
    const std::uint64_t at = packed_at_;
    CO_TRY(const std::uint64_t count, co_await refcounts_.get(at));
    if (packed_at_ == at && count > 0 && count < geometry().refcount_max()) {
      CO_CHECK(co_await refcounts_.increase({at, length}));
      if (packed_at_ == at) {
        place.offset = at;
        packed_at_ = is_aligned(at + length, unit) ? 0 : at + length;
        co_return place;
      }
      CO_CHECK(co_await refcounts_.decrease({at, length}));
    }
  }
  CO_TRY(const HostRun run, co_await allocate(1));
  place.offset = run.offset;
  packed_at_ = length == unit ? 0 : run.offset + length;
  co_return place;
}

}  // namespace formats::qcow2
