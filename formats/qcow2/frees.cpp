// frees.cpp - from the moment when nothing refers to a cluster any more to that when it may be
// allocated again (QR-6): what referred to it is durably gone, every request that may still be
// reading or writing it has ended, and its space was given back.
#include <algorithm>

#include "formats/qcow2/image.h"

namespace formats::qcow2 {

void Image::free_later(Range host, FreedBy by) {
  const std::uint64_t epoch = epochs_.end();
  if (!frees_.empty()) {
    Freed& last = frees_.back();
    if (last.host.end() == host.offset && last.by == by && last.generation == generation_ &&
        !last.in_data_file) {
      last.host.length += host.length;
      last.epoch = epoch;
      return;
    }
  }
  frees_.push_back({host, by, epoch, generation_, false, 0});
}

void Image::free_cluster(const Cluster& cluster, FreedBy by) {
  if (cluster.compressed) {
    free_later(Range{cluster.place.offset, cluster.place.length}.widened(geometry().cluster_size()),
               by);
  } else if (cluster.has_host && edges_.data == edges_.file) {
    free_later({cluster.host, geometry().cluster_size()}, by);
  } else if (cluster.has_host) {
    // there a cluster lies always in the same place: whoever writes it anew wins
    data_frees_[cluster.host] = ++data_frees_made_;
    frees_.push_back({{cluster.host, geometry().cluster_size()},
                      by,
                      epochs_.end(),
                      generation_,
                      true,
                      data_frees_made_});
  }
}

// The space of these clusters of the external data file is used again, and stays: who wants to
// write to them waits for a discard that is under way.
asio::awaitable<void> Image::keep_data(Range host) {
  for (std::uint64_t at = host.offset; !data_frees_.empty() && at < host.end();
       at += geometry().cluster_size()) {
    data_frees_.erase(at);
  }
  while (data_discard_.overlaps(host)) co_await data_discarded_.wait();
}

asio::awaitable<void> Image::give_back_data(const Freed& freed) {
  const auto found = data_frees_.find(freed.host.offset);
  if (found == data_frees_.end() || found->second != freed.serial) co_return;
  data_frees_.erase(found);
  const std::uint64_t size = edges_.data->size();
  if (!passes_discard(freed.by) || freed.host.offset >= size) co_return;
  data_discard_ = freed.host;
  const Range there{freed.host.offset, std::min(freed.host.length, size - freed.host.offset)};
  (void)co_await edges_.data->discard(there);
  data_discard_ = {};
  data_discarded_.notify_all();
}

// Gives the space back where it is the last reference. Errors do not matter: it is only space.
asio::awaitable<void> Image::give_back(Range host) {
  const std::uint64_t unit = geometry().cluster_size();
  for (std::uint64_t at = host.offset; at < host.end();) {
    std::uint64_t end = at;
    while (end < host.end()) {
      const Result<std::uint64_t> count = co_await refcounts_.get(end);
      if (!count) break;
      if (*count != 1) break;
      end += unit;
    }
    const Range run{at, std::min(end, edges_.file->size()) - std::min(at, edges_.file->size())};
    if (!run.empty()) (void)co_await edges_.file->discard(run);
    at = end + unit;
  }
}

bool Image::passes_discard(FreedBy by) const {
  switch (by) {
    case FreedBy::request:
      return options_.pass_request == Discards::pass;
    case FreedBy::snapshot:
      return options_.pass_snapshot == Discards::pass;
    case FreedBy::other:
      return options_.pass_other == Discards::pass;
  }
  return false;
}

asio::awaitable<void> Image::reap() {
  while (!frees_.empty() && frees_.front().generation <= durable_generation_) {
    co_await epochs_.over(frees_.front().epoch);
    const Freed freed = frees_.front();
    if (edges_.file->may(graph::Permission::write)) {
      if (freed.in_data_file) {
        co_await give_back_data(freed);
      } else {
        compressed_.forget(freed.host);
        leave_packed(freed.host);
        if (passes_discard(freed.by)) co_await give_back(freed.host);
        (void)co_await refcounts_.decrease(freed.host);  // a failure leaves it leaked
      }
    }
    frees_.pop_front();
    ++reaps_;
  }
  reaping_ = false;
  reaped_.notify_all();
}

// Makes what was freed allocatable before its time. False when there was nothing to be had.
// Requires: the caller holds no pin.
Task<bool> Image::reclaim() {
  if (frees_.empty()) co_return false;
  const std::uint64_t before = reaps_;
  CO_CHECK(co_await node_.flushes().flush(node_, graph::FlushDepth::disk));
  while (reaping_) co_await reaped_.wait();
  co_return reaps_ > before;
}

}  // namespace formats::qcow2
