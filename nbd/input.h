// input.h - what a connection has read from its socket and not parsed yet. While it waits for more,
// it needs no memory beyond the beginning of a request.
#pragma once

#include <array>
#include <cstring>
#include <span>
#include <utility>

#include "graph/base/buffer.h"

namespace nbd {

class Input {
 public:
  static constexpr std::size_t capacity = 256 * KiB;
  // While memory is short: what is read ahead then waits, and is counted by nobody.
  static constexpr std::size_t capacity_short = 16 * KiB;

  explicit Input(BufferPool& pool) : pool_(pool) {}
  std::span<const std::byte> bytes() const { return buffer_.bytes().subspan(start_, size()); }
  std::size_t size() const { return end_ - start_; }
  void consume(std::size_t n) {
    start_ += n;
    if (start_ == end_) start_ = end_ = 0;
  }
  // Room for more behind what is there. A new buffer has `size_of_new` bytes.
  std::span<std::byte> space(std::size_t size_of_new) {
    if (!buffer_) {
      buffer_ = PooledBuffer(pool_, size_of_new);
      std::memcpy(buffer_.bytes().data(), kept_.data(), size());
    } else if (start_ > 0) {
      std::memmove(buffer_.bytes().data(), buffer_.bytes().data() + start_, size());
      end_ -= std::exchange(start_, 0);
    }
    return buffer_.bytes().subspan(end_);
  }
  void filled(std::size_t n) { end_ += n; }
  // Gives back what is not needed for what is there, before a long wait.
  void shrink() {
    if (size() == 0) return rest();
    const std::size_t needed = BufferPool::rounded(size());
    if (!buffer_ || 2 * needed > buffer_.size()) return;
    PooledBuffer smaller(pool_, needed);
    std::memcpy(smaller.bytes().data(), buffer_.bytes().data() + start_, size());
    end_ -= std::exchange(start_, 0);
    buffer_ = std::move(smaller);
  }
  // Gives the memory back, but for the beginning of a request. Before bytes() comes space().
  void rest() {
    if (!buffer_ || size() > kept_.size()) return;
    std::memcpy(kept_.data(), buffer_.bytes().data() + start_, size());
    end_ -= std::exchange(start_, 0);
    buffer_ = PooledBuffer();
  }

 private:
  BufferPool& pool_;
  PooledBuffer buffer_;
  std::array<std::byte, 32> kept_;  // a request's header has 28
  std::size_t start_ = 0;
  std::size_t end_ = 0;
};

}  // namespace nbd
