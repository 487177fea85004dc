#include "formats/qcow2/create.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "formats/qcow2/layout.h"
#include "formats/qcow2/refcount_block.h"

namespace formats::qcow2 {
namespace {

constexpr std::uint64_t sector = 512;             // QEMU cuts a disk to a multiple of this
constexpr std::uint64_t piece_bytes = 1 * MiB;    // written at a time
constexpr std::uint64_t zeroes_bytes = 64 * MiB;  // reserved at a time

// What lies where, in clusters: header, refcount table, refcount blocks, L1, L2, data, without a
// gap.
struct Plan {
  std::uint64_t table_clusters = 0;  // refcount table
  std::uint64_t blocks = 0;          // refcount blocks
  std::uint64_t l1_entries = 0;
  std::uint64_t l1_clusters = 0;
  std::uint64_t l2_tables = 0;      // there from the start
  std::uint64_t data_clusters = 0;  // in this file

  std::uint64_t blocks_at() const { return 1 + table_clusters; }
  std::uint64_t l1_at() const { return blocks_at() + blocks; }
  std::uint64_t l2_at() const { return l1_at() + l1_clusters; }
  std::uint64_t data_at() const { return l2_at() + l2_tables; }
  std::uint64_t clusters() const { return data_at() + data_clusters; }
};

Plan plan_of(const CreateOptions& options) {
  const Geometry& geometry = options.geometry;
  Plan plan;
  plan.l1_entries = geometry.l1_entries(options.size);
  plan.l1_clusters = geometry.clusters(plan.l1_entries * 8);
  if (options.preallocation != Preallocation::off) {
    plan.l2_tables = plan.l1_entries;
    if (options.data_file.empty()) plan.data_clusters = geometry.clusters(options.size);
  }
  // each block that is added may need another one to be counted by, and a longer table
  for (;;) {
    const std::uint64_t per_block = geometry.refcount_block_entries();
    const std::uint64_t blocks = (plan.clusters() + per_block - 1) / per_block;
    const std::uint64_t table = std::max<std::uint64_t>(1, geometry.clusters(blocks * 8));
    if (blocks == plan.blocks && table == plan.table_clusters) return plan;
    plan.blocks = blocks;
    plan.table_clusters = table;
  }
}

Header header_of(const CreateOptions& options, const Plan& plan) {
  Header header;
  header.version = options.version;
  header.geometry = options.geometry;
  header.size = options.size;
  header.l1_size = static_cast<std::uint32_t>(plan.l1_entries);
  if (plan.l1_entries > 0) header.l1_table_offset = plan.l1_at() << options.geometry.cluster_bits;
  header.refcount_table_offset = options.geometry.cluster_size();
  header.refcount_table_clusters = static_cast<std::uint32_t>(plan.table_clusters);
  header.backing_file = options.backing_file;
  header.backing_format = options.backing_format;
  header.compression = options.compression;
  if (options.compression != Compression::zlib) {
    header.incompatible_features |= incompatible::compression;
  }
  if (options.geometry.extended_l2) header.incompatible_features |= incompatible::extended_l2;
  if (options.lazy_refcounts) header.compatible_features |= compatible::lazy_refcounts;
  if (!options.data_file.empty()) {
    header.incompatible_features |= incompatible::data_file;
    header.data_file = options.data_file;
  }
  if (options.data_file_raw) header.autoclear_features |= autoclear::data_file_raw;
  return header;
}

class Creation {
 public:
  Creation(Medium& file, Medium* data, const CreateOptions& options, const Progress& progress)
      : file_(file), data_(data), options_(options), plan_(plan_of(options)), progress_(progress) {}

  Task<> run() {
    // first of all, so that a header that can't be made costs nothing
    CO_TRY(const std::vector<std::byte> header, format_header(header_of(options_, plan_)));
    CO_CHECK(check_plan());
    CO_CHECK(co_await make_room());
    CO_CHECK(co_await write_refcounts());
    if (plan_.l2_tables > 0) {
      CO_CHECK(co_await write_l1());
      CO_CHECK(co_await write_l2());
    }
    CO_CHECK(co_await preallocate());
    CO_CHECK(co_await file_.flush());
    if (data_ != nullptr) CO_CHECK(co_await data_->flush());
    CO_CHECK(co_await write_bytes(file_, 0, header));
    co_return co_await file_.flush();
  }

 private:
  std::uint64_t bytes(std::uint64_t clusters) const {
    return clusters << options_.geometry.cluster_bits;
  }
  Result<> check_plan() const {
    if (bytes(plan_.table_clusters) <= refcount_table_bytes_max &&
        plan_.clusters() <= (host_offset_max >> options_.geometry.cluster_bits)) {
      return ok;
    }
    return failure(Errc::no_space,
                   fmt::format("qcow2: {} clusters of {} bytes are more than an image can count: "
                               "use larger clusters",
                               plan_.clusters(), options_.geometry.cluster_size()));
  }

  // Of the right size and all zeroes, as far as it will be read.
  Task<> make_room() {
    const std::uint64_t whole = bytes(plan_.clusters());
    const Range old{0, std::min(file_.size(), whole)};
    if (file_.can_grow()) {
      CO_CHECK(co_await file_.resize(0));
      CO_CHECK(co_await file_.resize(whole));
    } else if (old.length < whole) {
      co_return failure(
          Errc::no_space,
          fmt::format("qcow2: the image needs {} bytes, its device has {}", whole, file_.size()));
    } else {
      CO_CHECK(co_await file_.write_zeroes(old, unmapping()));
      CO_CHECK(co_await file_.flush());  // it is no image from here on
    }
    if (data_ == nullptr) co_return ok;
    const Range old_data{0, std::min(data_->size(), options_.size)};
    if (!data_->can_grow()) {
      if (old_data.length == options_.size) {
        co_return co_await data_->write_zeroes(old_data, unmapping());
      }
      co_return failure(Errc::no_space,
                        fmt::format("qcow2: the data file needs {} bytes, it has {}", options_.size,
                                    data_->size()));
    }
    CO_CHECK(co_await data_->resize(0));
    co_return co_await data_->resize(options_.size);
  }
  static graph::ZeroFlags unmapping() {
    graph::ZeroFlags flags;
    flags.may_unmap = true;
    return flags;
  }

  // Writes `count` entries of `entry_bytes` from `offset` on, which `fill(entry, first, n)` makes.
  template <class Fill>
  Task<> write_entries(std::uint64_t offset, std::uint64_t count, std::uint64_t entry_bytes,
                       Fill fill) {
    const std::uint64_t at_a_time = piece_bytes / entry_bytes;
    std::vector<std::byte> piece(std::min(count, at_a_time) * entry_bytes);
    for (std::uint64_t first = 0; first < count;) {
      const std::uint64_t n = std::min(at_a_time, count - first);
      std::ranges::fill(piece, std::byte{0});
      for (std::uint64_t i = 0; i < n; ++i) fill(piece.data() + i * entry_bytes, first + i);
      CO_CHECK(co_await write_bytes(file_, offset + first * entry_bytes,
                                    std::span(piece).first(n * entry_bytes)));
      first += n;
    }
    co_return ok;
  }
  static void put(std::byte* at, std::uint64_t value) {
    const Be<std::uint64_t> stored = value;
    std::memcpy(at, &stored, sizeof(stored));
  }

  Task<> write_refcounts() {
    const auto entry = [this](std::byte* at, std::uint64_t index) {
      put(at, bytes(plan_.blocks_at() + index));
    };
    CO_CHECK(co_await write_entries(bytes(1), plan_.blocks, 8, entry));
    const std::uint64_t per_block = options_.geometry.refcount_block_entries();
    std::vector<std::byte> block(options_.geometry.cluster_size());
    for (std::uint64_t index = 0; index < plan_.blocks; ++index) {
      std::ranges::fill(block, std::byte{0});
      const std::uint64_t counted = std::min(per_block, plan_.clusters() - index * per_block);
      for (std::uint64_t i = 0; i < counted; ++i) {
        set_refcount(block, options_.geometry.refcount_order, i, 1);
      }
      CO_CHECK(co_await write_bytes(file_, bytes(plan_.blocks_at() + index), block));
    }
    co_return ok;
  }

  Task<> write_l1() {
    const auto entry = [this](std::byte* at, std::uint64_t index) {
      put(at, bytes(plan_.l2_at() + index) | copied_bit);
    };
    co_return co_await write_entries(bytes(plan_.l1_at()), plan_.l1_entries, 8, entry);
  }

  // Parts of a cluster are not allocated, they are as below: zero, or the backing file's.
  Task<> write_l2() {
    const auto entry = [this](std::byte* at, std::uint64_t index) {
      put(at, bytes((data_ == nullptr ? plan_.data_at() : 0) + index) | copied_bit);
    };
    co_return co_await write_entries(bytes(plan_.l2_at()),
                                     options_.geometry.clusters(options_.size),
                                     options_.geometry.l2_entry_bytes(), entry);
  }

  // The space for the data itself.
  Task<> preallocate() {
    if (options_.preallocation < Preallocation::falloc) co_return ok;
    Medium& medium = data_ != nullptr ? *data_ : file_;
    const std::uint64_t start = data_ != nullptr ? 0 : bytes(plan_.data_at());
    const std::uint64_t end = medium.can_grow() ? medium.size() : start + options_.size;
    const bool writes = options_.preallocation == Preallocation::full;
    const std::uint64_t step = writes ? piece_bytes : zeroes_bytes;
    const std::vector<std::byte> zeroes(writes ? step : 0);
    for (std::uint64_t at = start; at < end;) {
      const std::uint64_t n = std::min(step, end - at);
      if (writes) {
        CO_CHECK(co_await write_bytes(medium, at, std::span(zeroes).first(n)));
      } else {
        CO_CHECK(co_await medium.write_zeroes({at, n}, graph::ZeroFlags()));
      }
      at += n;
      if (progress_) progress_(at - start, end - start);
    }
    co_return ok;
  }

  Medium& file_;
  Medium* data_;
  const CreateOptions& options_;
  const Plan plan_;
  const Progress& progress_;
};

}  // namespace

Task<> create(Medium& file, Medium* data, CreateOptions options, const Progress& progress) {
  options.size = align_up(options.size, sector);
  // a raw data file shows every byte from the start, so each has to have its place
  if (options.data_file_raw && options.preallocation == Preallocation::off) {
    options.preallocation = Preallocation::metadata;
  }
  Creation creation(file, data, options, progress);
  co_return co_await creation.run();
}

}  // namespace formats::qcow2
