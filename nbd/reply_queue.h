// reply_queue.h - finished replies on their way out: many of them leave in one gathered write.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>
#include <vector>

#include "graph/base/stream.h"
#include "nbd/budget.h"
#include "nbd/wire.h"

namespace nbd {

// A message ready to be sent: a fixed head, then `body`.
struct Reply {
  std::array<std::byte, 64> head;
  std::size_t head_size = 0;
  PooledBuffer body;
  std::size_t body_size = 0;  // bytes of `body` that are sent
  Budget::Share share;        // given back when the message has left

  template <class T>
  void put(const T& message) {
    static_assert(sizeof(T) <= sizeof head);
    assert(head_size + sizeof(T) <= head.size());
    std::memcpy(head.data() + head_size, &message, sizeof(T));
    head_size += sizeof(T);
  }
  // Text that fits into the head; false, and nothing done, when it does not.
  bool put_text(std::string_view text) {
    if (text.size() > head.size() - head_size) return false;
    std::memcpy(head.data() + head_size, text.data(), text.size());
    head_size += text.size();
    return true;
  }
  std::size_t size() const { return head_size + body_size; }
};

class ReplyQueue {
 public:
  explicit ReplyQueue(Stream& stream) : stream_(stream) {}

  void add(Reply reply) {
    if (abandoned_) return;
    unsent_ += reply.size();
    queue_.push_back(std::move(reply));
  }
  bool empty() const { return first_ == queue_.size(); }
  std::size_t unsent() const { return unsent_; }  // bytes

  // Sends what the peer takes at once. False: it must read first, wait for stream.writable().
  // Errors: connection_lost; what is queued is dropped then.
  Result<bool> send_now();
  // Drops what is queued; what is added later is dropped by send_now.
  void abandon();
  // Waits until fewer than `bytes` are unsent.
  asio::awaitable<void> below(std::size_t bytes);

 private:
  void sent(std::size_t bytes);
  Stream& stream_;
  std::vector<Reply> queue_;  // the first `first_` have left
  std::size_t first_ = 0;
  std::size_t front_sent_ = 0;  // bytes of the first reply that have left
  std::size_t unsent_ = 0;
  bool abandoned_ = false;
  ConstBuffers gathered_;
  WaitQueue progress_;
};

}  // namespace nbd
