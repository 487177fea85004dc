#include "src/image_info.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cstdio>
#include <filesystem>
#include <optional>
#include <system_error>
#include <vector>

#include "formats/qcow2/layout.h"
#include "formats/qcow2/read_metadata.h"
#include "graph/base/json.h"
#include "src/image_format.h"
#include "src/one_file.h"
#include "src/snapshot_text.h"

namespace app {
namespace {

using formats::qcow2::Bitmap;
using formats::qcow2::Compression;
using formats::qcow2::Encryption;
using formats::qcow2::Header;
using formats::qcow2::Snapshot;
namespace bit = formats::qcow2::incompatible;

constexpr std::size_t chain_max = 200;  // images

struct Qcow2Info {
  Header header;
  std::vector<Snapshot> snapshots;
  std::vector<Bitmap> bitmaps;

  std::vector<graph::Port> ports() const {
    std::vector<graph::Port> ports;
    for (const Snapshot& each : snapshots) {
      ports.push_back(port_of(each, each.disk_size.value_or(header.size)));
    }
    return ports;
  }
};

struct Info {
  std::string filename;
  std::string format;
  std::uint64_t file_size = 0;
  std::uint64_t disk_size = 0;  // bytes of the medium in use
  std::optional<Qcow2Info> qcow2;

  std::uint64_t virtual_size() const { return qcow2 ? qcow2->header.size : file_size; }
  bool knows_virtual_size() const { return qcow2 || format == "raw"; }
};

// A name in an image counts from the image's folder.
std::string beside(const std::string& image, const std::string& name) {
  return (std::filesystem::path(image).parent_path() / name).string();
}

std::uint64_t disk_size_of(const std::string& filename) {
  struct ::stat status{};
  if (::stat(filename.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return 0;
  return static_cast<std::uint64_t>(status.st_blocks) * 512;
}

Task<Qcow2Info> read_qcow2(formats::qcow2::Medium& file) {
  Qcow2Info info;
  CO_TRY(info.header, co_await read_header(file));
  CO_TRY(formats::qcow2::SnapshotTable table, co_await read_snapshots(file, info.header));
  info.snapshots = std::move(table.snapshots);
  CO_TRY(info.bitmaps, co_await read_bitmaps(file, info.header));
  co_return std::move(info);
}

Task<Info> look_at(Home& home, Drivers drivers, std::string filename, std::string format) {
  Info info;
  CO_TRY(info.format, co_await format_of_image(home, filename, std::move(format)));
  OneFile file(home, drivers);
  CO_CHECK(co_await file.open(filename, FileUse::look));
  info.file_size = file.view().size();
  info.disk_size = disk_size_of(filename);
  Result<> done = ok;
  if (info.format == "qcow2") {
    Result<Qcow2Info> read = co_await read_qcow2(file.medium());
    if (read) {
      info.qcow2 = *std::move(read);
    } else {
      Error error = std::move(read).error();
      error.message.insert(0, filename + ": ");
      done = std::unexpected(std::move(error));
    }
  }
  const Result<> closed = co_await file.close();
  if (!done) co_return std::unexpected(std::move(done).error());
  if (!closed) co_return std::unexpected(closed.error());
  info.filename = std::move(filename);
  co_return std::move(info);
}

// The image itself, then those below it.
Task<std::vector<Info>> look_at_chain(Home& home, Drivers drivers, const InfoCommand& command) {
  std::vector<Info> chain;
  std::string filename = command.image;
  std::string format = command.format;
  for (;;) {
    CO_TRY(Info info, co_await look_at(home, drivers, filename, format));
    chain.push_back(std::move(info));
    const Info& last = chain.back();
    if (!command.backing_chain || !last.qcow2 || last.qcow2->header.backing_file.empty()) break;
    const Header& header = last.qcow2->header;
    // a guest can write a header into a raw image, with the names of other files in it
    if (!header.backing_format) {
      co_return failure(Errc::invalid_argument,
                        last.filename + " does not say what format its backing file '" +
                            printable(header.backing_file) + "' has, and it is not guessed");
    }
    if (chain.size() == chain_max) {
      co_return failure(Errc::corrupt, command.image + ": more than " + std::to_string(chain_max) +
                                           " images below each other: is it a circle?");
    }
    format = *header.backing_format;
    filename = beside(last.filename, header.backing_file);
  }
  co_return std::move(chain);
}

std::vector<std::string> flags_of(const Bitmap& bitmap) {
  std::vector<std::string> flags;
  if (bitmap.is_in_use()) flags.emplace_back("in-use");
  if (bitmap.is_automatic()) flags.emplace_back("auto");
  return flags;
}

Json json_of(const Bitmap& bitmap) {
  Json json{JsonObject()};
  Json flags{JsonArray()};
  for (std::string& flag : flags_of(bitmap)) flags.add(std::move(flag));
  json.set("name", bitmap.name);
  json.set("granularity", bitmap.granularity());
  json.set("flags", std::move(flags));
  return json;
}

std::string_view name_of(Compression compression) {
  return compression == Compression::zlib ? "zlib" : "zstd";
}

Json specific_json_of(const Qcow2Info& info) {
  const Header& header = info.header;
  Json data{JsonObject()};
  data.set("compat", header.version == 2 ? "0.10" : "1.1");
  data.set("compression-type", name_of(header.compression));
  data.set("refcount-bits", header.geometry.refcount_bits());
  if (header.version >= 3) {
    data.set("lazy-refcounts", header.lazy_refcounts());
    data.set("corrupt", header.is(bit::corrupt));
    data.set("extended-l2", header.geometry.extended_l2);
  }
  if (header.has_data_file()) {
    if (header.data_file) data.set("data-file", *header.data_file);
    data.set("data-file-raw", header.data_file_is_raw());
  }
  if (!info.bitmaps.empty()) {
    Json bitmaps{JsonArray()};
    for (const Bitmap& each : info.bitmaps) bitmaps.add(json_of(each));
    data.set("bitmaps", std::move(bitmaps));
  }
  if (header.encryption != Encryption::none) {
    Json encrypt{JsonObject()};
    encrypt.set("format", header.encryption == Encryption::aes ? "aes" : "luks");
    data.set("encrypt", std::move(encrypt));
  }
  Json specific{JsonObject()};
  specific.set("type", "qcow2");
  specific.set("data", std::move(data));
  return specific;
}

Json json_of(const Info& info) {
  Json json{JsonObject()};
  json.set("filename", info.filename);
  json.set("format", info.format);
  if (info.knows_virtual_size()) json.set("virtual-size", info.virtual_size());
  json.set("actual-size", info.disk_size);
  json.set("dirty-flag", info.qcow2 && info.qcow2->header.is(bit::dirty));
  if (!info.qcow2) return json;
  const Header& header = info.qcow2->header;
  json.set("cluster-size", header.cluster_size());
  if (header.encryption != Encryption::none) json.set("encrypted", true);
  if (!header.backing_file.empty()) {
    json.set("backing-filename", header.backing_file);
    json.set("full-backing-filename", beside(info.filename, header.backing_file));
    if (header.backing_format) json.set("backing-filename-format", *header.backing_format);
  }
  if (!info.qcow2->snapshots.empty()) {
    Json snapshots{JsonArray()};
    for (const graph::Port& each : info.qcow2->ports()) snapshots.add(snapshot_json(each));
    json.set("snapshots", std::move(snapshots));
  }
  json.set("format-specific", specific_json_of(*info.qcow2));
  return json;
}

std::string line(std::string_view key, std::string_view value) {
  return fmt::format("{}: {}\n", key, printable(value, value.size()));
}

std::string yes_or_no(bool value) { return value ? "yes" : "no"; }

// "1.5 GiB (1610612736 bytes)"
std::string size_text(std::uint64_t bytes) {
  constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(units); ++unit) value /= 1024;
  return fmt::format("{:.3g} {} ({} bytes)", value, units[unit], bytes);
}

std::string text_of(const Qcow2Info& info, const std::string& filename) {
  const Header& header = info.header;
  std::string text = line("cluster size", std::to_string(header.cluster_size()));
  if (!header.backing_file.empty()) {
    text += line("backing file",
                 header.backing_file + " (" + beside(filename, header.backing_file) + ")");
    text += line("backing file format", header.backing_format.value_or("not said"));
  }
  if (header.has_data_file()) {
    text += line("data file", header.data_file.value_or("not said"));
    text += line("data file is raw", yes_or_no(header.data_file_is_raw()));
  }
  text += line("compat", header.version == 2 ? "0.10" : "1.1");
  text += line("compression type", name_of(header.compression));
  text += line("refcount bits", std::to_string(header.geometry.refcount_bits()));
  text += line("lazy refcounts", yes_or_no(header.lazy_refcounts()));
  text += line("extended L2", yes_or_no(header.geometry.extended_l2));
  if (header.encryption != Encryption::none) {
    text += line("encrypted", header.encryption == Encryption::aes ? "aes" : "luks");
  }
  if (header.is(bit::dirty)) text += line("dirty", "yes: it was not closed");
  if (header.is(bit::corrupt)) text += line("corrupt", "yes: see gantry check");
  if (!info.snapshots.empty()) text += "snapshots:\n";
  for (const graph::Port& each : info.ports()) text += "  " + snapshot_line(each) + "\n";
  if (!info.bitmaps.empty()) text += "bitmaps:\n";
  for (const Bitmap& each : info.bitmaps) {
    text += fmt::format("  {}: granularity {}", printable(each.name), each.granularity());
    for (const std::string& flag : flags_of(each)) text += ", " + flag;
    text += "\n";
  }
  return text;
}

std::string text_of(const Info& info) {
  std::string text = line("image", info.filename) + line("format", info.format);
  if (info.knows_virtual_size()) text += line("virtual size", size_text(info.virtual_size()));
  text += line("disk size", size_text(info.disk_size));
  if (info.qcow2) text += text_of(*info.qcow2, info.filename);
  return text;
}

std::string text_of(const std::vector<Info>& chain) {
  std::string text;
  for (const Info& each : chain) text += (text.empty() ? "" : "\n") + text_of(each);
  return text;
}

Json json_of(const std::vector<Info>& chain) {
  Json list{JsonArray()};
  for (const Info& each : chain) list.add(json_of(each));
  return list;
}

}  // namespace

Task<int> print_info(Worker& worker, const InfoCommand& command, Drivers drivers) {
  CO_TRY(const std::vector<Info> chain, co_await look_at_chain(worker.home(), drivers, command));
  std::string text;
  if (!command.json) {
    text = text_of(chain);
  } else if (command.backing_chain) {
    text = to_text(json_of(chain)) + "\n";
  } else {
    text = to_text(json_of(chain.front())) + "\n";
  }
  std::fwrite(text.data(), 1, text.size(), stdout);
  co_return EXIT_SUCCESS;
}

}  // namespace app
