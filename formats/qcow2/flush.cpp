// flush.cpp - the order in which things reach the medium, so that whatever a crash leaves can be
// believed: counts before references, data before what makes it visible, and nothing is counted
// free before what referred to it is gone. Needs one device flush before the last one if any
// mapping changed, one more if a refcount block is new.
#include "formats/qcow2/image.h"

namespace formats::qcow2 {

// Counts first, then what leads to new blocks of them.
Task<> Image::write_refcounts() {
  CO_CHECK(co_await refcounts_.write());
  if (!refcounts_.wants_publishing()) co_return ok;
  CO_CHECK(co_await edges_.file->flush());
  CO_CHECK(co_await refcounts_.publish());
  if (const auto table = refcounts_.moved_to()) {
    header_.refcount_table_offset = table->offset;
    header_.refcount_table_clusters = table->clusters;
    CO_CHECK(co_await write_header());
  }
  refcounts_.published();
  co_return ok;
}

// QF-5: while the image says that its counts may be wrong they wait.
bool Image::may_postpone_refcounts() const {
  return header_.lazy_refcounts() && header_.version >= 3 &&
         refcounts_.dirty_bytes() <= refcounts_.blocks().bytes_max() / 2;
}

Task<> Image::flush_to_children() {
  if (health_.failed()) co_return std::unexpected(health_.failure_found());
  // everything that is written below is as it is at this moment
  frozen_generation_ = generation_++;
  const bool l2_changed = l2_cache_.freeze();
  frozen_freeze_ = l2_cache_.freezes();
  active_.freeze();
  const bool mapping_changed = l2_changed || active_.dirty();
  const bool lazy = may_postpone_refcounts();
  if (!lazy) refcounts_.freeze();
  if (!lazy) {  // else the header still tells of it
    for (const Range& table : refcounts_.take_left_behind()) free_later(table, FreedBy::other);
  }

  if (lazy && mapping_changed && !header_.is(incompatible::dirty)) {
    CO_CHECK(co_await say_dirty());
  }
  if (!lazy) CO_CHECK(co_await write_refcounts());
  if (!mapping_changed) co_return ok;
  CO_CHECK(co_await edges_.file->flush());
  if (edges_.data != edges_.file) CO_CHECK(co_await edges_.data->flush());
  CO_CHECK(co_await l2_cache_.write_frozen());
  co_return co_await active_.write_frozen(*edges_.file);
}

void Image::flush_done() {
  durable_generation_ = frozen_generation_;
  durable_freeze_ = frozen_freeze_;
  if (cached_bytes() > 0) cleaner_.wake(*home_);  // what was to be written may be forgotten now
  if (reaping_ || frees_.empty() || frees_.front().generation > durable_generation_) return;
  reaping_ = true;
  spawn(home_->executor, background_.enter_anyway(), reap());
}

Task<> Image::relieve() {
  const bool pressed = l2_cache_.dirty_bytes() > l2_cache_.bytes_max() / 2 ||
                       refcounts_.dirty_bytes() > refcounts_.blocks().bytes_max() / 2;
  if (!pressed) co_return ok;
  co_return co_await node_.flushes().flush(node_, graph::FlushDepth::disk);
}

}  // namespace formats::qcow2
