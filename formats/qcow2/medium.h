// medium.h - the file under an image, for what works on the file as a whole - create, check, info -
// whoever holds it: a driver by an edge, a command by a view.
#pragma once

#include <cstdint>
#include <span>

#include "graph/block_backend.h"

namespace formats::qcow2 {

// Offsets and errors as of Edge and BlockBackend.
class Medium {
 public:
  virtual ~Medium() = default;
  virtual std::uint64_t size() const = 0;  // bytes
  virtual bool can_grow() const = 0;
  virtual Task<> read(std::uint64_t offset, const Buffers& out) = 0;
  virtual Task<> write(std::uint64_t offset, const ConstBuffers& data) = 0;
  virtual Task<> write_zeroes(Range range, graph::ZeroFlags flags) = 0;
  virtual Task<> resize(std::uint64_t size) = 0;
  virtual Task<> flush() = 0;
};

// Lifetime: the edge or view outlives it.
template <class Holder>
class MediumOf final : public Medium {
 public:
  explicit MediumOf(Holder& holder) : holder_(holder) {}
  std::uint64_t size() const override { return holder_.size(); }
  bool can_grow() const override { return holder_.node().can_grow(); }
  Task<> read(std::uint64_t offset, const Buffers& out) override {
    return holder_.read(offset, out);
  }
  Task<> write(std::uint64_t offset, const ConstBuffers& data) override {
    return holder_.write(offset, data);
  }
  Task<> write_zeroes(Range range, graph::ZeroFlags flags) override {
    return holder_.write_zeroes(range, flags);
  }
  Task<> resize(std::uint64_t size) override { return holder_.resize(size); }
  Task<> flush() override { return holder_.flush(); }

 private:
  Holder& holder_;
};

// Fills `out`, with zeroes for what lies behind the end of the file: the last cluster of an image
// may be there in part only.
Task<> read_padded(Medium& medium, std::uint64_t offset, std::span<std::byte> out);
Task<> write_bytes(Medium& medium, std::uint64_t offset, std::span<const std::byte> data);

}  // namespace formats::qcow2
