// header.h - the first cluster of an image: parsed, checked, and put together again. Pure: no I/O,
// so that it can be fuzzed. Rules H-1 to H-18 of docs/qcow2.md.
// Spec: qcow2.rst, "Header", "Header extensions".
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/qcow2/geometry.h"
#include "graph/base/error.h"

namespace formats::qcow2 {

// Where a table of `entries` or bytes lies.
struct BitmapsExtension {
  std::uint32_t count = 0;
  std::uint64_t directory_size = 0;  // bytes
  std::uint64_t directory_offset = 0;
  bool operator==(const BitmapsExtension&) const = default;
};
struct EncryptionExtension {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;  // bytes
  bool operator==(const EncryptionExtension&) const = default;
};
struct FeatureName {
  std::uint8_t kind = 0;  // 0 incompatible, 1 compatible, 2 autoclear
  std::uint8_t bit = 0;
  std::string name;
  bool operator==(const FeatureName&) const = default;
};
struct UnknownExtension {
  std::uint32_t type = 0;
  std::vector<std::byte> data;
  bool operator==(const UnknownExtension&) const = default;
};

struct Header {
  std::uint32_t version = 3;
  Geometry geometry;
  std::uint64_t size = 0;  // bytes of the disk; any number
  Encryption encryption = Encryption::none;
  std::uint32_t l1_size = 0;  // entries
  std::uint64_t l1_table_offset = 0;
  std::uint64_t refcount_table_offset = 0;
  std::uint32_t refcount_table_clusters = 0;
  std::uint32_t snapshot_count = 0;
  std::uint64_t snapshots_offset = 0;
  std::uint64_t incompatible_features = 0;
  std::uint64_t compatible_features = 0;
  std::uint64_t autoclear_features = 0;
  Compression compression = Compression::zlib;
  std::vector<std::byte> unknown_fields;  // behind those that we know, kept as they are

  std::string backing_file;  // "": none
  std::optional<std::string> backing_format;
  std::optional<std::string> data_file;
  std::optional<BitmapsExtension> bitmaps;
  std::optional<EncryptionExtension> luks;
  std::vector<FeatureName> feature_names;
  std::vector<UnknownExtension> unknown_extensions;

  bool is(std::uint64_t incompatible_bit) const {
    return (incompatible_features & incompatible_bit) != 0;
  }
  bool has_data_file() const { return is(incompatible::data_file); }
  bool data_file_is_raw() const { return (autoclear_features & autoclear::data_file_raw) != 0; }
  bool lazy_refcounts() const { return (compatible_features & compatible::lazy_refcounts) != 0; }
  std::uint64_t cluster_size() const { return geometry.cluster_size(); }
  bool operator==(const Header&) const = default;
};

// What the first bytes claim the size of a cluster to be, in bytes: as much as parse_header() wants
// to see. Errors: invalid_argument (no qcow2, or a version or cluster size that nobody knows).
Result<std::uint64_t> claimed_cluster_size(std::span<const std::byte> first_bytes);

// Parses the first cluster (less where the file is shorter) of a file of `file_size` bytes, and
// checks everything that can be checked without a look at the rest.
// Errors: invalid_argument (no qcow2), not_supported (features that we don't know, by their names),
// corrupt; the message names field, value and offset, without the node's name.
Result<Header> parse_header(std::span<const std::byte> first_cluster, std::uint64_t file_size);

// Puts what changes while an image is in use (size, tables, features) into the first 512 bytes as
// they are, so that writing them is atomic and moves nothing.
void patch_header(std::span<std::byte> first_sector, const Header& header);

// The first cluster for `header`. The names of all known features go into every version 3 header.
// Errors: no_space when it does not fit into one cluster.
Result<std::vector<std::byte>> format_header(const Header& header);
// The same with the extensions and the name of the backing file from `extensions_at` on, a multiple
// of 8 behind all fields: nothing that counts lies between them and the fields. Without the names
// of features. Requires: version 3.
Result<std::vector<std::byte>> format_header_at(const Header& header, std::uint64_t extensions_at);

}  // namespace formats::qcow2
