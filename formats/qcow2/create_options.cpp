#include "formats/qcow2/create_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <string_view>
#include <vector>

#include "formats/qcow2/layout.h"

namespace formats::qcow2 {
namespace {

constexpr std::array specs{
    OptionSpec{"size", Kind::bytes, "", "of the disk; rounded up to 512, which QEMU needs"},
    OptionSpec{"compat", Kind::choice, "1.1", "version of the format: 0.10 is 2, 1.1 is 3",
               "0.10|1.1|v2|v3"},
    OptionSpec{"cluster_size", Kind::bytes, "64K", "unit of allocation, 512 to 2M"},
    OptionSpec{"refcount_bits", Kind::integer, "16", "width of a reference count: 1, 2, 4, ... 64"},
    OptionSpec{"lazy_refcounts", Kind::boolean, "off", "reference counts may be repaired later"},
    OptionSpec{"extended_l2", Kind::boolean, "off", "clusters have 32 parts, each on its own"},
    OptionSpec{"compression_type", Kind::choice, "zlib", "of compressed clusters", "zlib|zstd"},
    OptionSpec{"preallocation", Kind::choice, "off", "what is there from the start",
               "off|metadata|falloc|full"},
    OptionSpec{"backing_file", Kind::text, "", "the image below, as a name in the image's folder"},
    OptionSpec{"backing_fmt", Kind::text, "", "its format, which is never guessed"},
    OptionSpec{"data_file", Kind::text, "", "a file of its own for the data"},
    OptionSpec{"data_file_raw", Kind::boolean, "off", "that file is a raw image, too"},
};

constexpr const char* needs_v3 =
    "compatibility level 1.1 and above (use version=v3 or greater)";  // qemu-img's words

std::unexpected<Error> bad(std::string what) {
  return failure(Errc::invalid_argument, std::move(what));
}

Result<bool> parse_switch(std::string_view key, std::string_view value) {
  for (const std::string_view yes : {"on", "yes", "true", "y"}) {
    if (value == yes) return true;
  }
  for (const std::string_view no : {"off", "no", "false", "n"}) {
    if (value == no) return false;
  }
  return bad(fmt::format("Parameter '{}' expects 'on' or 'off'", key));
}

// The position of `value` among the choices of `key`.
Result<std::size_t> parse_choice(std::string_view key, std::string_view value) {
  for (const OptionSpec& spec : specs) {
    if (spec.key != key) continue;
    std::string_view rest = spec.choices;
    for (std::size_t index = 0; !rest.empty(); ++index) {
      const std::string_view choice = rest.substr(0, rest.find('|'));
      if (choice == value) return index;
      rest.remove_prefix(std::min(rest.size(), choice.size() + 1));
    }
    return bad(
        fmt::format("Invalid parameter '{}' for '{}', it is one of {}", value, key, spec.choices));
  }
  return bad("");
}

Result<> set_cluster_size(CreateOptions& options, const std::string& value) {
  TRY(const std::uint64_t size, parse_bytes(value));
  if (!is_power_of_two(size) || size < 512 || size > 2 * MiB) {
    return bad("Cluster size must be a power of two between 512 and 2048k");
  }
  options.geometry.cluster_bits = static_cast<unsigned>(std::countr_zero(size));
  return ok;
}

Result<> set_refcount_bits(CreateOptions& options, const std::string& value) {
  std::uint64_t bits = 0;
  const auto parsed = std::from_chars(value.data(), value.data() + value.size(), bits);
  if (parsed.ec != std::errc() || parsed.ptr != value.data() + value.size() ||
      !is_power_of_two(bits) || bits > 64) {
    return bad("Refcount width must be a power of two and may not exceed 64 bits");
  }
  options.geometry.refcount_order = static_cast<unsigned>(std::countr_zero(bits));
  return ok;
}

Result<> set(CreateOptions& options, const std::string& key, const std::string& value) {
  if (key == "size") {
    TRY(options.size, parse_bytes(value));
    return ok;
  }
  if (key == "cluster_size") return set_cluster_size(options, value);
  if (key == "refcount_bits") return set_refcount_bits(options, value);
  if (key == "backing_file") options.backing_file = value;
  if (key == "backing_fmt") options.backing_format = value;
  if (key == "data_file") options.data_file = value;
  if (key == "compat") {
    TRY(const std::size_t choice, parse_choice(key, value));
    options.version = choice % 2 == 0 ? 2 : 3;
  }
  if (key == "compression_type") {
    TRY(const std::size_t choice, parse_choice(key, value));
    options.compression = choice == 0 ? Compression::zlib : Compression::zstd;
  }
  if (key == "preallocation") {
    TRY(const std::size_t choice, parse_choice(key, value));
    options.preallocation = static_cast<Preallocation>(choice);
  }
  if (key == "lazy_refcounts") {
    TRY(options.lazy_refcounts, parse_switch(key, value));
  }
  if (key == "extended_l2") {
    TRY(options.geometry.extended_l2, parse_switch(key, value));
  }
  if (key == "data_file_raw") {
    TRY(options.data_file_raw, parse_switch(key, value));
  }
  return ok;
}

Result<> check_version(const CreateOptions& options) {
  if (options.version >= 3) return ok;
  if (options.lazy_refcounts) {
    return bad(fmt::format("Lazy refcounts only supported with {}", needs_v3));
  }
  if (options.geometry.refcount_order != 4) {
    return bad(fmt::format("Different refcount widths than 16 bits require {}", needs_v3));
  }
  if (options.geometry.extended_l2) {
    return bad(fmt::format("Extended L2 entries are only supported with {}", needs_v3));
  }
  if (options.compression != Compression::zlib) {
    return bad(fmt::format("Non-zlib compression type is only supported with {}", needs_v3));
  }
  if (!options.data_file.empty()) {
    return bad(fmt::format("External data files are only supported with {}", needs_v3));
  }
  return ok;
}

Result<> check_files(const CreateOptions& options) {
  if (options.backing_format && options.backing_file.empty()) {
    return bad("Backing format cannot be used without backing file");
  }
  if (!options.backing_file.empty() &&
      (!options.backing_format || options.backing_format->empty())) {
    return bad("backing_file needs backing_fmt: the format of an image below is never guessed");
  }
  if (options.backing_file.size() > backing_name_max) {
    return bad(fmt::format("the name of the backing file has {} bytes, it can have {}",
                           options.backing_file.size(), backing_name_max));
  }
  if (options.data_file_raw && options.data_file.empty()) {
    return bad("data-file-raw requires data-file");
  }
  if (options.data_file_raw && !options.backing_file.empty()) {
    return bad("Backing file and data-file-raw cannot be used at the same time");
  }
  if (!options.backing_file.empty() && options.preallocation != Preallocation::off &&
      !options.geometry.extended_l2) {
    return bad(
        "Backing file and preallocation can only be used at the same time if extended_l2 is on");
  }
  return ok;
}

}  // namespace

std::span<const OptionSpec> create_option_specs() { return specs; }

Result<CreateOptions> parse_create_options(
    std::span<const std::pair<std::string, std::string>> words) {
  CreateOptions options;
  std::vector<std::string> keys;
  for (const OptionSpec& spec : specs) keys.emplace_back(spec.key);
  for (const auto& [key, value] : words) {
    if (std::ranges::find(keys, key) == keys.end()) {
      const auto meant = nearest(key, keys);
      return bad(fmt::format("qcow2 has no option '{}'", key) +
                 (meant ? fmt::format(", did you mean '{}'?", *meant) : ""));
    }
    CHECK(set(options, key, value));
  }
  CHECK(check(options));
  return options;
}

Result<> check(const CreateOptions& options) {
  CHECK(check_version(options));
  CHECK(check_files(options));
  const Geometry& geometry = options.geometry;
  if (geometry.extended_l2 && geometry.cluster_bits < extended_cluster_bits_min) {
    return bad("Extended L2 entries are only supported with cluster sizes of at least 16384 bytes");
  }
  if (options.size > align_down(geometry.size_max(), 512)) {
    return bad(
        fmt::format("The image size is too large for file format 'qcow2' (try using a larger "
                    "cluster size): {} bytes, the most is {}",
                    options.size, align_down(geometry.size_max(), 512)));
  }
  return ok;
}

}  // namespace formats::qcow2
