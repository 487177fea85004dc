#include "graph/request_tracker.h"

#include <utility>

namespace graph {

void RequestTracker::Claim::release() {
  if (tracker_ == nullptr) return;
  tracker_->entries_.erase(entry_);
  std::exchange(tracker_, nullptr)->changed_.notify_all();
}

bool RequestTracker::conflicts_before(std::list<Entry>::iterator self) const {
  for (auto other = entries_.begin(); other != std::list<Entry>::const_iterator(self); ++other) {
    const bool exclusive = other->hold == Hold::exclusive || self->hold == Hold::exclusive;
    if (exclusive && other->range.overlaps(self->range)) return true;
  }
  return false;
}

asio::awaitable<RequestTracker::Claim> RequestTracker::claim(Range range, Hold hold) {
  const Entry wanted{range, hold};
  const auto self = entries_.insert(entries_.end(), wanted);
  Claim claim(*this, self);
  while (conflicts_before(self)) co_await changed_.wait();
  co_return std::move(claim);
}

}  // namespace graph
