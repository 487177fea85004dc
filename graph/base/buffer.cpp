#include "graph/base/buffer.h"

#include <bit>
#include <cstring>
#include <new>

Buffer::Buffer(std::size_t size) : size_(size) {
  const std::size_t rounded = align_up(size == 0 ? 1 : size, alignment);
  memory_.reset(static_cast<std::byte*>(std::aligned_alloc(alignment, rounded)));
  if (!memory_) throw std::bad_alloc();
}

Buffer BufferPool::take(std::size_t size) {
  const std::size_t whole = rounded(size);
  lent_ += whole;
  auto& free = free_[static_cast<std::size_t>(std::countr_zero(whole))];
  if (free.empty()) return Buffer(whole);
  Buffer buffer = std::move(free.back());
  free.pop_back();
  kept_ -= buffer.size();
  return buffer;
}

void BufferPool::give(Buffer buffer) {
  lent_ -= buffer.size();
  if (!is_power_of_two(buffer.size()) || kept_ + buffer.size() > kept_max_) return;
  kept_ += buffer.size();
  free_[static_cast<std::size_t>(std::countr_zero(buffer.size()))].push_back(std::move(buffer));
}

void fill_zero(const Buffers& buffers) {
  for (const auto& span : buffers.spans()) std::memset(span.data(), 0, span.size());
}

std::size_t copy_bytes(const Buffers& to, const ConstBuffers& from) {
  std::size_t copied = 0;
  auto source = from.spans().begin();
  std::size_t used = 0;  // bytes of *source
  for (auto target : to.spans()) {
    while (!target.empty() && source != from.spans().end()) {
      const std::size_t n = std::min(target.size(), source->size() - used);
      std::memcpy(target.data(), source->data() + used, n);
      target = target.subspan(n);
      copied += n;
      used += n;
      if (used == source->size()) {
        ++source;
        used = 0;
      }
    }
  }
  return copied;
}

bool is_zero(const ConstBuffers& buffers) {
  for (const auto& span : buffers.spans()) {
    if (!is_zero(span)) return false;
  }
  return true;
}
