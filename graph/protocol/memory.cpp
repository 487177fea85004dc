// memory.cpp - a disk in memory, gone with the daemon. Sparse: what was never written takes no
// space and reads as zeroes. For tests, scratch disks and as the model that other nodes are
// compared with.
#include <algorithm>
#include <array>
#include <map>

#include "graph/driver.h"
#include "graph/protocol/protocol.h"

namespace graph {
namespace {

constexpr std::array memory_options{
    OptionSpec{"size", Kind::bytes, "1G", "size of the disk"},
};

class Memory final : public Protocol {
 public:
  explicit Memory(std::uint64_t size) : size_(size) {}

  std::uint64_t own_size() const override { return size_; }
  Growth growth() const override { return Growth::yes; }
  std::string detail() const override { return format_bytes(size_); }

  Task<> read(std::uint64_t offset, const Buffers& out) override {
    for (auto span : out.spans()) {
      while (!span.empty()) {
        const std::uint64_t in_page = offset % page_size;
        const std::size_t n = std::min<std::uint64_t>(span.size(), page_size - in_page);
        const auto page = pages_.find(offset / page_size);
        if (page == pages_.end()) {
          std::ranges::fill(span.first(n), std::byte{0});
        } else {
          std::ranges::copy(page->second.bytes().subspan(in_page, n), span.begin());
        }
        span = span.subspan(n);
        offset += n;
      }
    }
    return succeeded();
  }

  Task<> write(std::uint64_t offset, const ConstBuffers& data, WriteFlags) override {
    grow_to(offset + data.size());
    for (auto span : data.spans()) {
      while (!span.empty()) {
        const std::uint64_t in_page = offset % page_size;
        const std::size_t n = std::min<std::uint64_t>(span.size(), page_size - in_page);
        std::ranges::copy(span.first(n), page_at(offset).subspan(in_page).begin());
        span = span.subspan(n);
        offset += n;
      }
    }
    return succeeded();
  }

  Task<> write_zeroes(Range range, ZeroFlags flags) override {
    grow_to(range.end());
    if (!flags.may_unmap) {  // stays provisioned: every page of the range exists
      for (std::uint64_t at = range.offset; at < range.end();) {
        const std::uint64_t n = std::min(range.end() - at, page_size - at % page_size);
        const auto page = page_at(at).subspan(at % page_size, n);
        std::ranges::fill(page, std::byte{0});
        at += n;
      }
      return succeeded();
    }
    return discard(range);
  }

  Task<> discard(Range range) override {
    for (auto page = pages_.lower_bound(range.offset / page_size);
         page != pages_.end() && page->first * page_size < range.end();) {
      const std::uint64_t start = std::max(page->first * page_size, range.offset);
      const std::uint64_t end = std::min((page->first + 1) * page_size, range.end());
      if (end - start == page_size) {
        page = pages_.erase(page);
        continue;
      }
      std::ranges::fill(page->second.bytes().subspan(start % page_size, end - start), std::byte{0});
      ++page;
    }
    return succeeded();
  }

  Task<> resize(std::uint64_t size) override {
    if (size < size_) {
      // what grows again later must read as zeroes
      const std::uint64_t old = std::exchange(size_, size);
      refresh_size();
      return discard({size, old - size});
    }
    grow_to(size);
    return succeeded();
  }

  Task<> prefetch(Range) override { return succeeded(); }

  Task<Extents> map(Range range, MapDepth) override {
    Extents extents;
    for (std::uint64_t at = range.offset; at < range.end();) {
      const auto page = pages_.lower_bound(at / page_size);
      const bool stored = page != pages_.end() && page->first == at / page_size;
      const std::uint64_t limit = stored                 ? (page->first + 1) * page_size
                                  : page == pages_.end() ? range.end()
                                                         : page->first * page_size;
      Extent extent;
      extent.length = std::min(limit, range.end()) - at;
      extent.kind = stored ? ExtentKind::data : ExtentKind::zero;
      extent.allocated = extent.settled = true;
      extent.offset = at;
      at += extent.length;
      Extent* last = extents.list.empty() ? nullptr : &extents.list.back();
      if (last != nullptr && last->kind == extent.kind) {
        last->length += extent.length;
      } else {
        extents.list.push_back(extent);
      }
    }
    co_return std::move(extents);
  }

  Limits own_limits() const override {
    Limits limits;
    limits.native_fua = limits.native_zeroes = true;
    return limits;
  }

 private:
  static constexpr std::uint64_t page_size = 64 * KiB;
  void grow_to(std::uint64_t end) {
    if (end <= size_) return;
    size_ = end;
    refresh_size();
  }
  std::span<std::byte> page_at(std::uint64_t offset) {
    Buffer& page = pages_[offset / page_size];
    if (!page) {
      page = Buffer(page_size);
      std::ranges::fill(page.bytes(), std::byte{0});
    }
    return page.bytes();
  }
  std::uint64_t size_;
  std::map<std::uint64_t, Buffer> pages_;  // by offset / page_size
};

Task<std::unique_ptr<Node>> open_memory(OpenContext& context) {
  co_return std::make_unique<Memory>(context.options().bytes("size"));
}

}  // namespace

extern const Driver memory_driver{"memory", "a disk in memory, gone with the daemon",
                                  memory_options, open_memory};

}  // namespace graph
