#include "nbd/reply_queue.h"

#include <algorithm>

namespace nbd {
namespace {

constexpr std::size_t replies_per_write = 256;  // two spans each, well within IOV_MAX

}  // namespace

Result<bool> ReplyQueue::send_now() {
  while (!queue_.empty()) {
    gathered_.clear();
    std::size_t skip = front_sent_;
    const std::size_t count = std::min(queue_.size(), replies_per_write);
    for (std::size_t i = 0; i < count; ++i) {
      const Reply& reply = queue_[i];
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
  while (!queue_.empty() && bytes >= queue_.front().size()) {
    bytes -= queue_.front().size();
    queue_.pop_front();
  }
  front_sent_ = bytes;
  progress_.notify_all();
}

void ReplyQueue::abandon() {
  abandoned_ = true;
  queue_.clear();
  front_sent_ = unsent_ = 0;
  progress_.notify_all();
}

asio::awaitable<void> ReplyQueue::below(std::size_t bytes) {
  while (unsent_ >= bytes && !abandoned_) co_await progress_.wait();
}

}  // namespace nbd
