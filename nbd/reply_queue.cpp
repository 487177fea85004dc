#include "nbd/reply_queue.h"

#include <algorithm>

namespace nbd {
namespace {

constexpr std::size_t replies_per_write = 256;  // two spans each, well within IOV_MAX
constexpr std::size_t compact_at = 1024;        // replies that have left
constexpr std::size_t kept_max = 64;            // places that an idle connection keeps

}  // namespace

Result<bool> ReplyQueue::send_now() {
  while (!empty()) {
    gathered_.clear();
    std::size_t skip = front_sent_;
    const std::size_t count = std::min(queue_.size() - first_, replies_per_write);
    for (const Reply& reply : std::span(queue_).subspan(first_, count)) {
      const std::span<const std::byte> parts[] = {std::span(reply.head).first(reply.head_size),
                                                  reply.body.bytes().first(reply.body_size)};
      for (const auto part : parts) {
        const std::size_t gone = std::min(skip, part.size());
        gathered_.add(part.subspan(gone));
        skip -= gone;
      }
    }
    auto written = stream_.write_now(gathered_);
    if (!written) {
      abandon();
      return std::unexpected(std::move(written).error());
    }
    sent(*written);
    if (*written < gathered_.size() && *written == 0) return false;
  }
  return true;
}

void ReplyQueue::sent(std::size_t bytes) {
  unsent_ -= bytes;
  bytes += front_sent_;
  while (!empty() && bytes >= queue_[first_].size()) {
    const Reply gone = std::move(queue_[first_++]);  // its memory and its share go back
    bytes -= gone.size();
  }
  if (empty() || first_ >= compact_at) {
    queue_.erase(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(first_));
    first_ = 0;
    if (queue_.empty() && queue_.capacity() > kept_max) queue_.shrink_to_fit();
  }
  front_sent_ = bytes;
  progress_.notify_all();
}

void ReplyQueue::abandon() {
  abandoned_ = true;
  queue_.clear();
  first_ = 0;
  front_sent_ = unsent_ = 0;
  progress_.notify_all();
}

asio::awaitable<void> ReplyQueue::below(std::size_t bytes) {
  while (unsent_ >= bytes && !abandoned_) co_await progress_.wait();
}

}  // namespace nbd
