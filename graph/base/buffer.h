// buffer.h - memory for data in flight: owned buffers, the worker's pool of them, and
// gather/scatter lists.
#pragma once

#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "graph/base/bytes.h"

// Page-aligned memory, uninitialised; owned. Good for O_DIRECT of any device.
class Buffer {
 public:
  static constexpr std::size_t alignment = 4096;

  Buffer() = default;
  // Requires: memory is there; a host without any ends the process.
  explicit Buffer(std::size_t size);

  std::span<std::byte> bytes() { return {memory_.get(), size_}; }
  std::span<const std::byte> bytes() const { return {memory_.get(), size_}; }
  std::byte* data() { return memory_.get(); }
  const std::byte* data() const { return memory_.get(); }
  std::size_t size() const { return size_; }
  explicit operator bool() const { return memory_ != nullptr; }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  std::size_t size_ = 0;
};

// The worker's free buffers by power-of-two size class, last returned first, so that a hot one is
// in the processor's cache. Keeps at most `kept_max` bytes.
class BufferPool {
 public:
  explicit BufferPool(std::size_t kept_max = 16 * MiB) : kept_max_(kept_max) {}

  // What a buffer for `size` bytes takes in memory.
  static std::size_t rounded(std::size_t size) {
    return std::bit_ceil(std::max(size, Buffer::alignment));
  }
  // At least `size` bytes, uninitialised.
  Buffer take(std::size_t size);
  void give(Buffer buffer);
  std::size_t kept() const { return kept_; }
  // Bytes taken and not given back yet.
  std::size_t lent() const { return lent_; }

 private:
  std::array<std::vector<Buffer>, 64> free_;  // by log2 of the size
  std::size_t kept_ = 0;
  std::size_t lent_ = 0;
  std::size_t kept_max_;
};

// A buffer that goes back to its pool.
class PooledBuffer {
 public:
  PooledBuffer() = default;
  PooledBuffer(BufferPool& pool, std::size_t size)
      : pool_(&pool), buffer_(pool.take(size)), size_(size) {}
  PooledBuffer(PooledBuffer&& other) noexcept
      : pool_(std::exchange(other.pool_, nullptr)),
        buffer_(std::move(other.buffer_)),
        size_(std::exchange(other.size_, 0)) {}
  PooledBuffer& operator=(PooledBuffer&& other) noexcept {
    if (this != &other) {
      release();
      pool_ = std::exchange(other.pool_, nullptr);
      buffer_ = std::move(other.buffer_);
      size_ = std::exchange(other.size_, 0);
    }
    return *this;
  }
  ~PooledBuffer() { release(); }

  // Exactly the size asked for, though the memory behind may be larger.
  std::span<std::byte> bytes() { return {buffer_.data(), size_}; }
  std::span<const std::byte> bytes() const { return {buffer_.data(), size_}; }
  std::size_t size() const { return size_; }
  explicit operator bool() const { return static_cast<bool>(buffer_); }

 private:
  void release() {
    if (pool_ != nullptr && buffer_) pool_->give(std::move(buffer_));
    pool_ = nullptr;
  }
  BufferPool* pool_ = nullptr;
  Buffer buffer_;
  std::size_t size_ = 0;
};

// A list of spans that is read or written as one: `Buffers` is filled, `ConstBuffers` is taken
// from. Views only. Lifetime: the memory outlives the request; a request takes its list by
// reference, so the list does, too.
template <class Byte>
class BufferList {
 public:
  BufferList() = default;
  BufferList(std::span<Byte> bytes) { add(bytes); }
  // A filled list can be written out again.
  template <class Other>
    requires(std::is_const_v<Byte> && std::is_same_v<Other, std::byte>)
  BufferList(const BufferList<Other>& other) {
    for (const auto& span : other.spans()) add(span);
  }

  void add(std::span<Byte> bytes) {
    if (bytes.empty()) return;
    size_ += bytes.size();
    if (more_.empty() && count_ < few_.size()) {
      few_[count_++] = bytes;
      return;
    }
    if (more_.empty()) more_.assign(few_.begin(), few_.end());
    more_.push_back(bytes);
    ++count_;
  }
  void add(const BufferList& other) {
    for (const auto& span : other.spans()) add(span);
  }

  // Empties the list, keeping its memory for the next one.
  void clear() {
    more_.clear();
    size_ = count_ = 0;
  }

  std::size_t size() const { return size_; }  // bytes
  bool empty() const { return size_ == 0; }
  std::span<const std::span<Byte>> spans() const {
    return {more_.empty() ? few_.data() : more_.data(), count_};
  }

  // The part [offset, offset + length) of the bytes listed.
  // Requires: it lies within.
  BufferList slice(std::size_t offset, std::size_t length) const {
    assert(offset <= size_ && length <= size_ - offset);
    BufferList part;
    for (const auto& span : spans()) {
      if (length == 0) break;
      if (offset >= span.size()) {
        offset -= span.size();
        continue;
      }
      const std::size_t n = std::min(length, span.size() - offset);
      part.add(span.subspan(offset, n));
      offset = 0;
      length -= n;
    }
    return part;
  }

  // True when each span starts and ends on a multiple of `unit`, as O_DIRECT asks.
  bool is_aligned_to(std::size_t unit) const {
    for (const auto& span : spans()) {
      if (!is_aligned(reinterpret_cast<std::uintptr_t>(span.data()), unit) ||
          !is_aligned(span.size(), unit)) {
        return false;
      }
    }
    return true;
  }

 private:
  std::size_t size_ = 0;
  std::size_t count_ = 0;
  std::array<std::span<Byte>, 4> few_;
  std::vector<std::span<Byte>> more_;  // all of them, once there are more than fit above
};

using Buffers = BufferList<std::byte>;
using ConstBuffers = BufferList<const std::byte>;

// A list of spans is what the kernel calls an iovec array.
static_assert(sizeof(std::span<std::byte>) == sizeof(iovec));
inline const iovec* as_iovecs(std::span<const std::span<std::byte>> spans) {
  return reinterpret_cast<const iovec*>(spans.data());
}
inline const iovec* as_iovecs(std::span<const std::span<const std::byte>> spans) {
  return reinterpret_cast<const iovec*>(spans.data());
}

void fill_zero(const Buffers& buffers);
// Copies min(to.size(), from.size()) bytes and returns how many.
std::size_t copy_bytes(const Buffers& to, const ConstBuffers& from);
bool is_zero(const ConstBuffers& buffers);
