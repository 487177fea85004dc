#include "formats/qcow2/header.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace formats::qcow2 {
namespace {

// In the order in which they are written.
struct KnownFeature {
  std::uint8_t kind;
  std::uint8_t bit;
  std::string_view name;
};
constexpr std::array known_features{
    KnownFeature{0, 0, "dirty bit"},
    KnownFeature{0, 1, "corrupt bit"},
    KnownFeature{0, 2, "external data file"},
    KnownFeature{0, 3, "compression type"},
    KnownFeature{0, 4, "extended L2 entries"},
    KnownFeature{1, 0, "lazy refcounts"},
    KnownFeature{2, 0, "bitmaps"},
    KnownFeature{2, 1, "raw external data"},
};

template <class... Args>
std::unexpected<Error> bad(fmt::format_string<Args...> format, Args&&... args) {
  return failure(Errc::corrupt, "qcow2: " + fmt::format(format, std::forward<Args>(args)...));
}

// A table in the file: aligned, of a sane size, and not behind any end that a file may have.
Result<> check_table(const Header& header, std::string_view what, std::uint64_t offset,
                     std::uint64_t bytes, std::uint64_t bytes_max) {
  if (bytes > bytes_max) {
    return bad("{} of {} bytes is too large, the most is {}", what, bytes, bytes_max);
  }
  if (!header.geometry.is_cluster_aligned(offset)) {
    return bad("{} at {:#x} is not aligned to {:#x}", what, offset, header.cluster_size());
  }
  if (offset > host_offset_max || bytes > host_offset_max - offset) {
    return bad("{} at {:#x} lies behind the last possible offset", what, offset);
  }
  return ok;
}

std::string text_of(std::span<const std::byte> data) {
  return {reinterpret_cast<const char*>(data.data()), data.size()};
}

Result<> parse_extension(Header& header, std::uint32_t type, std::span<const std::byte> data,
                         std::uint64_t at) {
  switch (type) {
    case extension::backing_format:
      header.backing_format = text_of(data);
      return ok;
    case extension::data_file:
      header.data_file = text_of(data);
      return ok;
    case extension::feature_names:
      for (ByteReader reader(data); reader.remaining() >= sizeof(RawFeatureName);) {
        const RawFeatureName raw = *reader.take<RawFeatureName>();
        FeatureName name;
        name.kind = raw.kind;
        name.bit = raw.bit;
        name.name = std::string(raw.name, strnlen(raw.name, sizeof(raw.name)));
        header.feature_names.push_back(std::move(name));
      }
      return ok;
    case extension::bitmaps: {
      ByteReader reader(data);
      const auto raw = reader.take<RawBitmapsExtension>();
      if (!raw || reader.remaining() != 0) {
        return bad("bitmaps extension at {:#x} has {} bytes instead of 24", at, data.size());
      }
      // one whose bit is not set was left by who knows no bitmaps: nothing in it is believed
      if (raw->reserved != 0 && (header.autoclear_features & autoclear::bitmaps) != 0) {
        return bad("bitmaps extension at {:#x} has a reserved field {}, which is not 0", at,
                   raw->reserved.get());
      }
      BitmapsExtension bitmaps;
      bitmaps.count = raw->nb_bitmaps;
      bitmaps.directory_size = raw->directory_size;
      bitmaps.directory_offset = raw->directory_offset;
      header.bitmaps = bitmaps;
      return ok;
    }
    case extension::encryption: {
      ByteReader reader(data);
      const auto raw = reader.take<RawEncryptionExtension>();
      if (!raw || reader.remaining() != 0) {
        return bad("encryption extension at {:#x} has {} bytes instead of 16", at, data.size());
      }
      EncryptionExtension luks;
      luks.offset = raw->offset;
      luks.length = raw->length;
      header.luks = luks;
      return ok;
    }
    default: {
      UnknownExtension unknown;
      unknown.type = type;
      unknown.data.assign(data.begin(), data.end());
      header.unknown_extensions.push_back(std::move(unknown));
      return ok;
    }
  }
}

bool is_known(std::uint32_t type) {
  return type == extension::backing_format || type == extension::data_file ||
         type == extension::feature_names || type == extension::bitmaps ||
         type == extension::encryption;
}

// H-15
Result<> parse_extensions(Header& header, std::span<const std::byte> bytes, std::uint64_t at,
                          std::uint64_t end) {
  std::vector<std::uint32_t> seen;
  while (at < end) {
    if (end - at < sizeof(RawExtension)) {
      // too little for another one: QEMU takes that as the end
      return ok;
    }
    ByteReader reader(bytes.subspan(at));
    const RawExtension raw = *reader.take<RawExtension>();
    const std::uint32_t type = raw.type;
    const std::uint64_t length = raw.length;
    if (type == extension::end) return ok;
    if (length > end - at - sizeof(RawExtension)) {
      return bad("header extension {:#010x} at {:#x} has {} bytes and leaves the header", type, at,
                 length);
    }
    if (is_known(type) && std::ranges::find(seen, type) != seen.end()) {
      return bad("header extension {:#010x} at {:#x} is there twice", type, at);
    }
    seen.push_back(type);
    CHECK(parse_extension(header, type, bytes.subspan(at + sizeof(RawExtension), length), at));
    at += sizeof(RawExtension) + align_up(length, 8);
  }
  return ok;
}

// H-6: by their names, as far as the image tells them.
std::string unknown_feature_names(const Header& header, std::uint64_t unknown) {
  std::string names;
  for (unsigned bit = 0; bit < 64; ++bit) {
    if ((unknown >> bit & 1) == 0) continue;
    std::string name;
    for (const FeatureName& each : header.feature_names) {
      if (each.kind == 0 && each.bit == bit) name = each.name;
    }
    if (!names.empty()) names += ", ";
    names += name.empty() ? fmt::format("unknown incompatible feature bit {}", bit) : name;
  }
  return names;
}

// H-5, H-6, H-11, H-16, H-18: what the features say of each other.
Result<> check_features(const Header& header) {
  const std::uint64_t unknown = header.incompatible_features & ~incompatible::known;
  if (unknown != 0) {
    return failure(Errc::not_supported,
                   "qcow2: the image needs features that are not known here: " +
                       unknown_feature_names(header, unknown));
  }
  if (header.is(incompatible::compression) != (header.compression != Compression::zlib)) {
    return bad("compression type {} contradicts incompatible feature bit 3",
               static_cast<unsigned>(header.compression));
  }
  if (header.geometry.extended_l2 && header.geometry.cluster_bits < extended_cluster_bits_min) {
    return bad("extended L2 entries need clusters of 16384 bytes, they have {}",
               header.cluster_size());
  }
  if (header.data_file_is_raw() && !header.has_data_file()) {
    return bad("autoclear feature bit 1 (raw external data) is set without an external data file");
  }
  if (header.data_file_is_raw() && !header.backing_file.empty()) {
    return bad("a raw external data file and a backing file exclude each other");
  }
  if ((header.encryption == Encryption::luks) != header.luks.has_value()) {
    return header.luks ? bad("an encryption header pointer without crypt_method 2")
                       : bad("crypt_method 2 (LUKS) without an encryption header pointer");
  }
  return ok;
}

// H-12 to H-14
Result<> check_tables(const Header& header) {
  const Geometry& geometry = header.geometry;
  if (header.refcount_table_clusters == 0) return bad("refcount_table_clusters is 0");
  CHECK(check_table(header, "refcount table", header.refcount_table_offset,
                    std::uint64_t{header.refcount_table_clusters} << geometry.cluster_bits,
                    refcount_table_bytes_max));
  if (header.refcount_table_offset == 0) return bad("refcount_table_offset is 0");
  CHECK(check_table(header, "L1 table", header.l1_table_offset, std::uint64_t{header.l1_size} * 8,
                    l1_bytes_max));
  if (header.l1_size > 0 && header.l1_table_offset == 0) return bad("l1_table_offset is 0");
  if (header.size > geometry.size_max()) {
    return bad("size {} is too large for clusters of {} bytes, the most is {}", header.size,
               header.cluster_size(), geometry.size_max());
  }
  if (geometry.l1_entries(header.size) > header.l1_size) {
    return bad("L1 table is too small: {} entries, a size of {} needs {}", header.l1_size,
               header.size, geometry.l1_entries(header.size));
  }
  if (header.snapshot_count > snapshots_max) {
    return bad("{} snapshots are too many, the most is {}", header.snapshot_count, snapshots_max);
  }
  if (header.snapshot_count > 0) {
    CHECK(check_table(header, "snapshot table", header.snapshots_offset, 0,
                      snapshot_table_bytes_max));
    if (header.snapshots_offset == 0) return bad("snapshots_offset is 0");
  }
  if (header.luks) {
    CHECK(check_table(header, "encryption header", header.luks->offset, header.luks->length,
                      host_offset_max));
    if (header.luks->offset == 0) return bad("the encryption header's offset is 0");
  }
  if (header.bitmaps && (header.autoclear_features & autoclear::bitmaps) != 0) {
    const BitmapsExtension& bitmaps = *header.bitmaps;
    if (bitmaps.count == 0 || bitmaps.count > bitmaps_max) {
      return bad("bitmaps extension counts {} bitmaps, 1 to {} can be", bitmaps.count, bitmaps_max);
    }
    CHECK(check_table(header, "bitmap directory", bitmaps.directory_offset, bitmaps.directory_size,
                      bitmap_directory_bytes_max));
    if (bitmaps.directory_offset == 0) return bad("bitmap_directory_offset is 0");
  }
  return ok;
}

// H-3, H-5: the fields of version 3. Returns the header's length.
Result<std::uint32_t> parse_version_3(Header& header, std::span<const std::byte> bytes) {
  ByteReader reader(bytes.subspan(header_length_v2));
  const auto raw = reader.take<RawHeaderV3>();
  if (!raw) return bad("the file ends within the header");
  const std::uint32_t length = raw->header_length;
  if (length < header_length_v3 || length % 8 != 0 || length > header.cluster_size()) {
    return bad("header_length {} is not a multiple of 8 between {} and the cluster size {}", length,
               header_length_v3, header.cluster_size());
  }
  if (length > bytes.size()) return bad("the file ends within the header of {} bytes", length);
  header.incompatible_features = raw->incompatible_features;
  header.compatible_features = raw->compatible_features;
  header.autoclear_features = raw->autoclear_features;
  if (raw->refcount_order > refcount_order_max) {
    return bad("refcount_order {} is larger than {}", raw->refcount_order.get(),
               refcount_order_max);
  }
  header.geometry.refcount_order = raw->refcount_order;
  header.geometry.extended_l2 = header.is(incompatible::extended_l2);
  if (length > compression_type_at) {
    const auto type = std::to_integer<std::uint8_t>(bytes[compression_type_at]);
    if (type > static_cast<std::uint8_t>(Compression::zstd)) {
      return bad("compression_type {} is unknown", type);
    }
    header.compression = Compression{type};
    const auto rest = bytes.subspan(compression_type_at + 1, length - compression_type_at - 1);
    header.unknown_fields.assign(rest.begin(), rest.end());
    // a field that is not there is 0, so zeroes at the end say nothing
    while (!header.unknown_fields.empty() && header.unknown_fields.back() == std::byte{0}) {
      header.unknown_fields.pop_back();
    }
  }
  return length;
}

// H-4
Result<> parse_backing_name(Header& header, const RawHeader& raw,
                            std::span<const std::byte> bytes) {
  const std::uint64_t offset = raw.backing_file_offset;
  if (offset == 0) return ok;
  const std::uint64_t length = raw.backing_file_size;
  if (length > backing_name_max) {
    return bad("backing_file_size {} is larger than {}", length, backing_name_max);
  }
  if (offset > header.cluster_size() || length > header.cluster_size() - offset) {
    return bad("backing file name of {} bytes at {:#x} leaves the first cluster", length, offset);
  }
  if (offset > bytes.size() || length > bytes.size() - offset) {
    return bad("backing file name of {} bytes at {:#x} lies behind the end of the file", length,
               offset);
  }
  header.backing_file = text_of(bytes.subspan(offset, length));
  return ok;
}

void append(std::vector<std::byte>& out, std::span<const std::byte> bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}

void append_extension(std::vector<std::byte>& out, std::uint32_t type,
                      std::span<const std::byte> data) {
  RawExtension raw;
  raw.type = type;
  raw.length = static_cast<std::uint32_t>(data.size());
  append(out, bytes_of(raw));
  append(out, data);
  out.resize(align_up(out.size(), 8));
}

// The known names, then those that the image had besides.
std::vector<std::byte> format_feature_names(const Header& header) {
  std::vector<std::byte> table;
  const auto add = [&table](std::uint8_t kind, std::uint8_t bit, std::string_view name) {
    RawFeatureName raw{};
    raw.kind = kind;
    raw.bit = bit;
    std::memcpy(raw.name, name.data(), std::min(name.size(), sizeof(raw.name)));
    append(table, bytes_of(raw));
  };
  for (const KnownFeature& each : known_features) add(each.kind, each.bit, each.name);
  for (const FeatureName& each : header.feature_names) {
    const bool known = std::ranges::any_of(known_features, [&each](const KnownFeature& ours) {
      return ours.kind == each.kind && ours.bit == each.bit;
    });
    if (!known) add(each.kind, each.bit, each.name);
  }
  return table;
}

void append_fields(std::vector<std::byte>& out, const Header& header) {
  RawHeader raw;
  raw.magic = magic;
  raw.version = header.version;
  raw.backing_file_size = static_cast<std::uint32_t>(header.backing_file.size());
  raw.cluster_bits = header.geometry.cluster_bits;
  raw.size = header.size;
  raw.crypt_method = static_cast<std::uint32_t>(header.encryption);
  raw.l1_size = header.l1_size;
  raw.l1_table_offset = header.l1_table_offset;
  raw.refcount_table_offset = header.refcount_table_offset;
  raw.refcount_table_clusters = header.refcount_table_clusters;
  raw.nb_snapshots = header.snapshot_count;
  raw.snapshots_offset = header.snapshots_offset;
  append(out, bytes_of(raw));
  if (header.version < 3) return;

  const std::uint64_t more = 1 + header.unknown_fields.size();
  RawHeaderV3 added;
  added.incompatible_features = header.incompatible_features;
  added.compatible_features = header.compatible_features;
  added.autoclear_features = header.autoclear_features;
  added.refcount_order = header.geometry.refcount_order;
  added.header_length = static_cast<std::uint32_t>(header_length_v3 + align_up(more, 8));
  append(out, bytes_of(added));
  out.push_back(static_cast<std::byte>(header.compression));
  append(out, header.unknown_fields);
  out.resize(align_up(out.size(), 8));
}

// All but the names of features, which come last.
void append_extensions(std::vector<std::byte>& out, const Header& header) {
  if (header.backing_format) {
    append_extension(out, extension::backing_format,
                     bytes_of(std::string_view(*header.backing_format)));
  }
  if (header.data_file) {
    append_extension(out, extension::data_file, bytes_of(std::string_view(*header.data_file)));
  }
  if (header.luks) {
    RawEncryptionExtension raw;
    raw.offset = header.luks->offset;
    raw.length = header.luks->length;
    append_extension(out, extension::encryption, bytes_of(raw));
  }
  if (header.bitmaps) {
    RawBitmapsExtension raw;
    raw.nb_bitmaps = header.bitmaps->count;
    raw.directory_size = header.bitmaps->directory_size;
    raw.directory_offset = header.bitmaps->directory_offset;
    append_extension(out, extension::bitmaps, bytes_of(raw));
  }
  for (const UnknownExtension& each : header.unknown_extensions) {
    append_extension(out, each.type, each.data);
  }
}

// Ends the extensions, adds the backing file's name. Errors: no_space.
Result<> append_end(std::vector<std::byte>& out, const Header& header) {
  append_extension(out, extension::end, {});
  if (!header.backing_file.empty()) {
    const Be<std::uint64_t> name_at = out.size();
    std::memcpy(out.data() + offsetof(RawHeader, backing_file_offset), &name_at, sizeof(name_at));
    append(out, bytes_of(std::string_view(header.backing_file)));
  }
  if (out.size() > header.cluster_size()) {
    return failure(Errc::no_space,
                   fmt::format("qcow2: the header of {} bytes does not fit into a cluster of {}",
                               out.size(), header.cluster_size()));
  }
  out.resize(header.cluster_size());
  return ok;
}

}  // namespace

Result<std::uint64_t> claimed_cluster_size(std::span<const std::byte> first_bytes) {
  ByteReader reader(first_bytes);
  const auto raw = reader.take<RawHeader>();
  if (!raw || raw->magic != magic) {
    return failure(Errc::invalid_argument, "qcow2: the file does not start as a qcow2 image does");
  }
  if (raw->version != 2 && raw->version != 3) {
    return failure(
        Errc::not_supported,
        fmt::format("qcow2: version {} is not known here, only 2 and 3", raw->version.get()));
  }
  const std::uint32_t bits = raw->cluster_bits;
  if (bits < cluster_bits_min || bits > cluster_bits_max) {  // H-2
    return bad("cluster_bits {} is not between {} and {}", bits, cluster_bits_min,
               cluster_bits_max);
  }
  return std::uint64_t{1} << bits;
}

Result<Header> parse_header(std::span<const std::byte> first_cluster, std::uint64_t file_size) {
  TRY(const std::uint64_t cluster_size, claimed_cluster_size(first_cluster));
  const auto bytes =
      first_cluster.first(std::min<std::uint64_t>({first_cluster.size(), cluster_size, file_size}));
  if (bytes.size() < sizeof(RawHeader)) return bad("the file ends within the header");
  const RawHeader raw = *ByteReader(bytes).take<RawHeader>();

  Header header;
  header.version = raw.version;
  header.geometry.cluster_bits = raw.cluster_bits;
  header.size = raw.size;
  if (raw.crypt_method > static_cast<std::uint32_t>(Encryption::luks)) {
    return bad("crypt_method {} is unknown", raw.crypt_method.get());
  }
  header.encryption = Encryption{raw.crypt_method.get()};
  header.l1_size = raw.l1_size;
  header.l1_table_offset = raw.l1_table_offset;
  header.refcount_table_offset = raw.refcount_table_offset;
  header.refcount_table_clusters = raw.refcount_table_clusters;
  header.snapshot_count = raw.nb_snapshots;
  header.snapshots_offset = raw.snapshots_offset;

  std::uint32_t length = header_length_v2;
  if (header.version >= 3) {
    TRY(const std::uint32_t told, parse_version_3(header, bytes));
    length = told;
  }
  const std::uint64_t name_at = raw.backing_file_offset;
  if (name_at != 0 && name_at < length) {
    return bad("backing_file_offset {:#x} lies within the header of {} bytes", name_at, length);
  }
  CHECK(parse_backing_name(header, raw, bytes));
  const std::uint64_t end =
      name_at != 0 ? std::min<std::uint64_t>(name_at, bytes.size()) : bytes.size();
  CHECK(parse_extensions(header, bytes, length, end));
  CHECK(check_features(header));
  CHECK(check_tables(header));
  return header;
}

void patch_header(std::span<std::byte> first_sector, const Header& header) {
  RawHeader raw;
  std::memcpy(&raw, first_sector.data(), sizeof(raw));
  raw.size = header.size;
  raw.l1_size = header.l1_size;
  raw.l1_table_offset = header.l1_table_offset;
  raw.refcount_table_offset = header.refcount_table_offset;
  raw.refcount_table_clusters = header.refcount_table_clusters;
  raw.nb_snapshots = header.snapshot_count;
  raw.snapshots_offset = header.snapshots_offset;
  std::memcpy(first_sector.data(), &raw, sizeof(raw));
  if (header.version < 3) return;
  RawHeaderV3 added;
  const auto rest = first_sector.subspan(header_length_v2);
  std::memcpy(&added, rest.data(), sizeof(added));
  added.incompatible_features = header.incompatible_features;
  added.compatible_features = header.compatible_features;
  added.autoclear_features = header.autoclear_features;
  std::memcpy(rest.data(), &added, sizeof(added));
}

Result<std::vector<std::byte>> format_header(const Header& header) {
  std::vector<std::byte> out;
  append_fields(out, header);
  append_extensions(out, header);
  const std::vector<std::byte> names = format_feature_names(header);
  const std::uint64_t with_names =
      out.size() + 2 * sizeof(RawExtension) + names.size() + header.backing_file.size();
  // the names are for people, and small clusters have no room for them
  if (header.version >= 3 && with_names <= header.cluster_size()) {
    append_extension(out, extension::feature_names, names);
  }
  CHECK(append_end(out, header));
  return out;
}

Result<std::vector<std::byte>> format_header_at(const Header& header, std::uint64_t extensions_at) {
  std::vector<std::byte> out;
  append_fields(out, header);
  const Be<std::uint32_t> length = static_cast<std::uint32_t>(extensions_at);
  std::memcpy(out.data() + header_length_v2 + offsetof(RawHeaderV3, header_length), &length,
              sizeof(length));
  out.resize(std::max<std::uint64_t>(out.size(), extensions_at));
  append_extensions(out, header);
  CHECK(append_end(out, header));
  return out;
}

}  // namespace formats::qcow2
