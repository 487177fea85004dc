#include "tests/support/qcow2_image.h"

#include <fmt/format.h>

#include <cstring>
#include <map>

#include "formats/qcow2/layout.h"
#include "graph/base/bytes.h"

namespace test {
namespace {

using namespace formats::qcow2;

void put(std::vector<std::byte>& file, std::uint64_t at, std::span<const std::byte> bytes) {
  if (file.size() < at + bytes.size()) file.resize(at + bytes.size());
  std::memcpy(file.data() + at, bytes.data(), bytes.size());
}

std::uint64_t be64(const std::vector<std::byte>& file, std::uint64_t at) {
  std::uint64_t number = 0;
  for (std::uint64_t i = 0; i < 8; ++i) {
    number = number << 8 | (at + i < file.size() ? std::to_integer<unsigned>(file[at + i]) : 0);
  }
  return number;
}

std::uint64_t bits_at(const std::vector<std::byte>& file, std::uint64_t at, unsigned bits,
                      std::uint64_t index) {
  std::uint64_t number = 0;
  if (bits >= 8) {
    for (unsigned i = 0; i < bits / 8; ++i) {
      const std::uint64_t byte = at + index * (bits / 8) + i;
      number = number << 8 | (byte < file.size() ? std::to_integer<unsigned>(file[byte]) : 0);
    }
    return number;
  }
  for (unsigned i = 0; i < bits; ++i) {
    const std::uint64_t bit = index * bits + i;
    const unsigned byte =
        at + bit / 8 < file.size() ? std::to_integer<unsigned>(file[at + bit / 8]) : 0;
    number |= std::uint64_t{byte >> (bit % 8) & 1U} << i;
  }
  return number;
}

class Auditor {
 public:
  explicit Auditor(const std::vector<std::byte>& file) : file_(file) {
    std::memcpy(&header_, file.data(), sizeof(header_));
    if (header_.version >= 3) {
      std::memcpy(&v3_, file.data() + sizeof(header_), sizeof(v3_));
      geometry_.refcount_order = v3_.refcount_order;
      geometry_.extended_l2 = (v3_.incompatible_features & incompatible::extended_l2) != 0;
      external_ = (v3_.incompatible_features & incompatible::data_file) != 0;
    }
    geometry_.cluster_bits = header_.cluster_bits;
  }

  Qcow2Audit run() {
    refer(0, 1, "header");
    refer_table(header_.l1_table_offset, std::uint64_t{header_.l1_size} * 8, "L1 table");
    refer_table(header_.refcount_table_offset,
                std::uint64_t{header_.refcount_table_clusters} << geometry_.cluster_bits,
                "refcount table");
    for (std::uint64_t i = 0; i < table_entries(); ++i) {
      if (const std::uint64_t block = block_of(i)) refer(block, 1, "refcount block");
    }
    walk(header_.l1_table_offset, header_.l1_size, Flags::checked);
    std::uint64_t at = header_.snapshots_offset;
    for (std::uint32_t i = 0; i < header_.nb_snapshots; ++i) {
      RawSnapshot raw;
      std::memcpy(&raw, file_.data() + at, sizeof(raw));
      refer_table(raw.l1_table_offset, std::uint64_t{raw.l1_size} * 8, "snapshot's L1 table");
      walk(raw.l1_table_offset, raw.l1_size, Flags::ignored);
      at += align_up(sizeof(raw) + raw.extra_data_size + raw.id_size + raw.name_size, 8);
    }
    refer_table(header_.snapshots_offset, at - header_.snapshots_offset, "snapshot table");
    if (header_.version >= 3 && (v3_.autoclear_features & autoclear::bitmaps) != 0) walk_bitmaps();
    compare();
    return std::move(audit_);
  }

 private:
  enum class Flags : std::uint8_t { checked, ignored };

  std::uint64_t table_entries() const {
    return (std::uint64_t{header_.refcount_table_clusters} << geometry_.cluster_bits) / 8;
  }
  std::uint64_t block_of(std::uint64_t index) const {
    return be64(file_, header_.refcount_table_offset + index * 8);
  }
  std::uint64_t count_of(std::uint64_t cluster) const {
    const std::uint64_t entries = geometry_.refcount_block_entries();
    if (cluster / entries >= table_entries()) return 0;
    const std::uint64_t block = block_of(cluster / entries);
    if (block == 0) return 0;
    return bits_at(file_, block, geometry_.refcount_bits(), cluster % entries);
  }
  template <class... Args>
  void wrong(fmt::format_string<Args...> format, Args&&... args) {
    audit_.errors.push_back(fmt::format(format, std::forward<Args>(args)...));
  }
  void refer(std::uint64_t host, std::uint64_t clusters, std::string_view what) {
    if (!geometry_.is_cluster_aligned(host)) wrong("{} at {:#x} is not aligned", what, host);
    if (host >= align_up(file_.size(), geometry_.cluster_size()) + 64 * geometry_.cluster_size()) {
      wrong("{} at {:#x} is behind the end of the file of {}", what, host, file_.size());
    }
    for (std::uint64_t i = 0; i < clusters; ++i)
      ++references_[(host >> geometry_.cluster_bits) + i];
  }
  void refer_table(std::uint64_t host, std::uint64_t bytes, std::string_view what) {
    if (bytes > 0) refer(host, geometry_.clusters(bytes), what);
  }

  void walk(std::uint64_t l1, std::uint64_t entries, Flags flags) {
    for (std::uint64_t i = 0; i < entries; ++i) {
      const std::uint64_t entry = be64(file_, l1 + i * 8);
      const std::uint64_t table = entry & offset_mask;
      if (table == 0) continue;
      if (table >= file_.size()) wrong("L2 table at {:#x} is behind the end of the file", table);
      refer(table, 1, "L2 table");
      if (flags == Flags::checked) check_flag(entry, table, "L2 table");
      walk_l2(table, flags);
    }
  }
  void walk_l2(std::uint64_t table, Flags flags) {
    for (std::uint64_t i = 0; i < geometry_.l2_entries(); ++i) {
      const std::uint64_t entry = be64(file_, table + i * geometry_.l2_entry_bytes());
      if ((entry & compressed_bit) != 0) {
        const unsigned bits = geometry_.compressed_offset_bits();
        const std::uint64_t offset = entry & ((std::uint64_t{1} << bits) - 1);
        const std::uint64_t sectors = ((entry & (compressed_bit - 1)) >> bits) + 1;
        const Range place{align_down(offset, 512), sectors * 512};
        const Range clusters = place.widened(geometry_.cluster_size());
        refer(clusters.offset, geometry_.clusters(clusters.length), "compressed data");
        continue;
      }
      const std::uint64_t host = entry & offset_mask;
      if (host == 0 || external_) continue;
      refer(host, 1, "data");
      if (flags == Flags::checked) check_flag(entry, host, "data");
    }
  }
  void walk_bitmaps() {
    std::uint64_t at = v3_.header_length;
    while (be64(file_, at) >> 32 != extension::bitmaps) {
      if (be64(file_, at) >> 32 == extension::end) return wrong("no extension tells of bitmaps");
      at += 8 + align_up(be64(file_, at) & 0xffffffff, 8);
    }
    RawBitmapsExtension told;
    std::memcpy(&told, file_.data() + at + 8, sizeof(told));
    refer_table(told.directory_offset, told.directory_size, "bitmap directory");
    std::uint64_t entry_at = told.directory_offset;
    for (std::uint32_t i = 0; i < told.nb_bitmaps; ++i) {
      RawBitmapEntry raw;
      std::memcpy(&raw, file_.data() + entry_at, sizeof(raw));
      refer_table(raw.table_offset, std::uint64_t{raw.table_size} * 8, "bitmap table");
      for (std::uint64_t k = 0; k < raw.table_size; ++k) {
        const std::uint64_t bits = be64(file_, raw.table_offset + k * 8);
        if (bits > 1) refer(bits, 1, "bitmap");
      }
      entry_at += align_up(sizeof(raw) + raw.extra_data_size + raw.name_size, 8);
    }
    if (entry_at != told.directory_offset + told.directory_size) {
      wrong("the bitmap directory does not end where it should");
    }
  }
  void check_flag(std::uint64_t entry, std::uint64_t host, std::string_view what) {
    flags_.push_back({host, (entry & copied_bit) != 0, what});
  }

  void compare() {
    for (const auto& [cluster, references] : references_) {
      ++audit_.used;
      const std::uint64_t count = count_of(cluster);
      if (count < references) {
        wrong("cluster {:#x} is counted {} times and referred to {} times",
              cluster << geometry_.cluster_bits, count, references);
      }
      if (count > references) ++audit_.leaked;
    }
    const std::uint64_t entries = geometry_.refcount_block_entries();
    for (std::uint64_t i = 0; i < table_entries(); ++i) {
      if (block_of(i) == 0) continue;
      for (std::uint64_t k = 0; k < entries; ++k) {
        const std::uint64_t cluster = i * entries + k;
        if (count_of(cluster) > 0 && !references_.contains(cluster)) ++audit_.leaked;
      }
    }
    // A leaked reference makes a flag look wrong that is right: only the dangerous way round
    // counts.
    for (const Flag& flag : flags_) {
      const std::uint64_t references = references_[flag.host >> geometry_.cluster_bits];
      if (flag.copied && references > 1) {
        wrong("{} at {:#x} is COPIED and referred to {} times", flag.what, flag.host, references);
      }
      // version 2 can't say that its counts may be wrong, while a snapshot goes
      if (header_.version >= 3 && !flag.copied &&
          count_of(flag.host >> geometry_.cluster_bits) == 1) {
        wrong("{} at {:#x} has one reference and is not COPIED", flag.what, flag.host);
      }
    }
  }

  struct Flag {
    std::uint64_t host;
    bool copied;
    std::string_view what;
  };
  const std::vector<std::byte>& file_;
  RawHeader header_;
  RawHeaderV3 v3_;
  Geometry geometry_;
  bool external_ = false;
  std::map<std::uint64_t, std::uint64_t> references_;  // by cluster
  std::vector<Flag> flags_;
  Qcow2Audit audit_;
};

}  // namespace

std::vector<std::byte> empty_qcow2(const Qcow2Shape& shape) {
  const Geometry& geometry = shape.geometry;
  const std::uint64_t unit = geometry.cluster_size();
  const std::uint64_t l1_entries = geometry.l1_entries(shape.size);
  const std::uint64_t l1_clusters = geometry.clusters(l1_entries * 8);
  const std::uint64_t used = 1 + shape.table_clusters + l1_clusters;  // and blocks
  std::uint64_t blocks = 1;
  while (blocks * geometry.refcount_block_entries() < used + blocks) ++blocks;

  RawHeader raw;
  raw.magic = magic;
  raw.version = shape.version;
  raw.cluster_bits = geometry.cluster_bits;
  raw.size = shape.size;
  raw.refcount_table_offset = unit;
  raw.refcount_table_clusters = shape.table_clusters;
  const std::uint64_t blocks_at = (1 + shape.table_clusters) * unit;
  raw.l1_table_offset = blocks_at + blocks * unit;
  raw.l1_size = static_cast<std::uint32_t>(l1_entries);
  std::vector<std::byte> file((used + blocks) * unit);
  std::uint64_t at = header_length_v2;
  if (shape.version >= 3) {
    RawHeaderV3 added;
    added.incompatible_features = shape.incompatible |
                                  (geometry.extended_l2 ? incompatible::extended_l2 : 0) |
                                  (shape.data_file.empty() ? 0 : incompatible::data_file);
    added.compatible_features = shape.compatible;
    added.autoclear_features = shape.autoclear;
    added.refcount_order = geometry.refcount_order;
    added.header_length = header_length_v3;
    put(file, at, bytes_of(added));
    at = header_length_v3;
  }
  const auto extend = [&](std::uint32_t type, std::string_view data) {
    RawExtension extension;
    extension.type = type;
    extension.length = static_cast<std::uint32_t>(data.size());
    put(file, at, bytes_of(extension));
    put(file, at + sizeof(extension), bytes_of(data));
    at += sizeof(extension) + align_up(data.size(), 8);
  };
  if (!shape.backing.empty()) extend(extension::backing_format, "raw");
  if (!shape.data_file.empty()) extend(extension::data_file, shape.data_file);
  at += sizeof(RawExtension);
  if (!shape.backing.empty()) {
    raw.backing_file_offset = at;
    raw.backing_file_size = static_cast<std::uint32_t>(shape.backing.size());
    put(file, at, bytes_of(std::string_view(shape.backing)));
  }
  put(file, 0, bytes_of(raw));
  for (std::uint64_t i = 0; i < blocks; ++i) {
    const Be<std::uint64_t> entry = blocks_at + i * unit;
    put(file, unit + i * 8, bytes_of(entry));
  }
  for (std::uint64_t cluster = 0; cluster < used + blocks; ++cluster) {
    const std::uint64_t block = blocks_at;  // blocks lie in a row
    const unsigned bits = geometry.refcount_bits();
    if (bits >= 8) {
      file[block + cluster * (bits / 8) + bits / 8 - 1] = std::byte{1};
    } else {
      file[block + cluster * bits / 8] |= static_cast<std::byte>(1U << (cluster * bits % 8));
    }
  }
  return file;
}

Qcow2Audit audit_qcow2(const std::vector<std::byte>& file) { return Auditor(file).run(); }

}  // namespace test
