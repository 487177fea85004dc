// layout.h - qcow2 as it stands on the medium: structures, bits and named limits.
// Spec: docs/interop/qcow2.rst of QEMU.
#pragma once

#include <cstdint>
#include <type_traits>

#include "graph/base/bytes.h"

namespace formats::qcow2 {

inline constexpr std::uint32_t magic = 0x514649fb;  // "QFI\xfb"

// Limits of what is believed. All but the snapshot's extra data are QEMU's own.
inline constexpr unsigned cluster_bits_min = 9;
inline constexpr unsigned cluster_bits_max = 21;
inline constexpr unsigned extended_cluster_bits_min = 14;  // subclusters of 512 bytes
inline constexpr unsigned refcount_order_max = 6;
inline constexpr std::uint64_t l1_bytes_max = 32 * MiB;
inline constexpr std::uint64_t refcount_table_bytes_max = 8 * MiB;
inline constexpr std::uint32_t snapshots_max = 65536;
inline constexpr std::uint64_t snapshot_table_bytes_max = 64 * MiB;
inline constexpr std::uint32_t snapshot_extra_bytes_max = 1024;
inline constexpr std::uint32_t bitmaps_max = 65535;
inline constexpr std::uint64_t bitmap_directory_bytes_max = std::uint64_t{1024} * 65535;
inline constexpr std::uint64_t bitmap_table_bytes_max = 64 * MiB;
inline constexpr std::uint32_t bitmap_name_max = 1023;
inline constexpr unsigned granularity_bits_min = 9;
inline constexpr unsigned granularity_bits_max = 31;
inline constexpr std::uint32_t backing_name_max = 1023;
inline constexpr std::uint64_t host_offset_max = (std::uint64_t{1} << 56) - 1;
inline constexpr unsigned subclusters_max = 32;

// "Header"
struct RawHeader {
  Be<std::uint32_t> magic;
  Be<std::uint32_t> version;
  Be<std::uint64_t> backing_file_offset;
  Be<std::uint32_t> backing_file_size;
  Be<std::uint32_t> cluster_bits;
  Be<std::uint64_t> size;
  Be<std::uint32_t> crypt_method;
  Be<std::uint32_t> l1_size;  // entries
  Be<std::uint64_t> l1_table_offset;
  Be<std::uint64_t> refcount_table_offset;
  Be<std::uint32_t> refcount_table_clusters;
  Be<std::uint32_t> nb_snapshots;
  Be<std::uint64_t> snapshots_offset;
};
static_assert(sizeof(RawHeader) == 72 && alignof(RawHeader) == 1);

// What version 3 adds.
struct RawHeaderV3 {
  Be<std::uint64_t> incompatible_features;
  Be<std::uint64_t> compatible_features;
  Be<std::uint64_t> autoclear_features;
  Be<std::uint32_t> refcount_order;
  Be<std::uint32_t> header_length;
};
static_assert(sizeof(RawHeaderV3) == 32 && alignof(RawHeaderV3) == 1);

inline constexpr std::uint32_t header_length_v2 = 72;
inline constexpr std::uint32_t header_length_v3 = 104;
inline constexpr std::uint32_t compression_type_at = 104;

namespace incompatible {
inline constexpr std::uint64_t dirty = 1 << 0;
inline constexpr std::uint64_t corrupt = 1 << 1;
inline constexpr std::uint64_t data_file = 1 << 2;
inline constexpr std::uint64_t compression = 1 << 3;
inline constexpr std::uint64_t extended_l2 = 1 << 4;
inline constexpr std::uint64_t known = dirty | corrupt | data_file | compression | extended_l2;
}  // namespace incompatible
namespace compatible {
inline constexpr std::uint64_t lazy_refcounts = 1 << 0;
}
namespace autoclear {
inline constexpr std::uint64_t bitmaps = 1 << 0;
inline constexpr std::uint64_t data_file_raw = 1 << 1;
inline constexpr std::uint64_t known = bitmaps | data_file_raw;
}  // namespace autoclear

enum class Compression : std::uint8_t { zlib = 0, zstd = 1 };
enum class Encryption : std::uint32_t { none = 0, aes = 1, luks = 2 };

// "Header extensions"
struct RawExtension {
  Be<std::uint32_t> type;
  Be<std::uint32_t> length;  // of the data, without padding
};
static_assert(sizeof(RawExtension) == 8);

namespace extension {
inline constexpr std::uint32_t end = 0;
inline constexpr std::uint32_t backing_format = 0xe2792aca;
inline constexpr std::uint32_t feature_names = 0x6803f857;
inline constexpr std::uint32_t bitmaps = 0x23852875;
inline constexpr std::uint32_t encryption = 0x0537be77;
inline constexpr std::uint32_t data_file = 0x44415441;
}  // namespace extension

// "Feature name table"
struct RawFeatureName {
  std::uint8_t kind;  // 0 incompatible, 1 compatible, 2 autoclear
  std::uint8_t bit;
  char name[46];  // padded with zeroes, ended by none when it is that long
};
static_assert(sizeof(RawFeatureName) == 48);

// "Bitmaps extension"
struct RawBitmapsExtension {
  Be<std::uint32_t> nb_bitmaps;
  Be<std::uint32_t> reserved;
  Be<std::uint64_t> directory_size;  // bytes
  Be<std::uint64_t> directory_offset;
};
static_assert(sizeof(RawBitmapsExtension) == 24);

// "Full disk encryption header pointer"
struct RawEncryptionExtension {
  Be<std::uint64_t> offset;
  Be<std::uint64_t> length;
};
static_assert(sizeof(RawEncryptionExtension) == 16);

// "Cluster mapping": entries of L1 and L2.
inline constexpr std::uint64_t copied_bit = std::uint64_t{1} << 63;
inline constexpr std::uint64_t compressed_bit = std::uint64_t{1} << 62;
inline constexpr std::uint64_t zero_bit = 1;
inline constexpr std::uint64_t offset_mask = 0x00ff'ffff'ffff'fe00;  // bits 9 to 55
inline constexpr std::uint64_t l1_reserved_mask = ~(copied_bit | offset_mask);
// Of a standard cluster; bit 0 is reserved, too, in version 2 and in extended entries.
inline constexpr std::uint64_t l2_reserved_mask =
    ~(copied_bit | compressed_bit | offset_mask | zero_bit);
inline constexpr std::uint64_t refcount_table_reserved_mask = 0x1ff;

// "Snapshots"
struct RawSnapshot {
  Be<std::uint64_t> l1_table_offset;
  Be<std::uint32_t> l1_size;  // entries
  Be<std::uint16_t> id_size;
  Be<std::uint16_t> name_size;
  Be<std::uint32_t> date_seconds;
  Be<std::uint32_t> date_nanoseconds;
  Be<std::uint64_t> vm_clock_nanoseconds;
  Be<std::uint32_t> vm_state_size;
  Be<std::uint32_t> extra_data_size;
};
static_assert(sizeof(RawSnapshot) == 40);
struct RawSnapshotExtra {
  Be<std::uint64_t> vm_state_size;
  Be<std::uint64_t> disk_size;
  Be<std::uint64_t> icount;
};
static_assert(sizeof(RawSnapshotExtra) == 24);

// "Bitmap directory"
struct RawBitmapEntry {
  Be<std::uint64_t> table_offset;
  Be<std::uint32_t> table_size;  // entries
  Be<std::uint32_t> flags;
  std::uint8_t type;
  std::uint8_t granularity_bits;
  Be<std::uint16_t> name_size;
  Be<std::uint32_t> extra_data_size;
};
static_assert(sizeof(RawBitmapEntry) == 24);
namespace bitmap_flag {
inline constexpr std::uint32_t in_use = 1 << 0;
inline constexpr std::uint32_t automatic = 1 << 1;
inline constexpr std::uint32_t extra_data_compatible = 1 << 2;
inline constexpr std::uint32_t known = in_use | automatic | extra_data_compatible;
}  // namespace bitmap_flag
inline constexpr std::uint8_t dirty_tracking_bitmap = 1;

}  // namespace formats::qcow2
