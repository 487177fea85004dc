#include "formats/qcow2/read_metadata.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "formats/qcow2/layout.h"

namespace formats::qcow2 {
namespace {

// Version 3 asks for the size of the VM state and that of the disk.
constexpr std::uint32_t extra_data_v3 = 16;
constexpr std::uint64_t window_bytes = 64 * KiB;

// Bytes of a file from front to back, read in large pieces.
class Window {
 public:
  Window(Medium& file, std::uint64_t end) : file_(file), end_(end) {}

  // Exactly [offset, offset + length) of the file, zeroes behind its end.
  // Lifetime: until the next call.
  Task<std::span<const std::byte>> get(std::uint64_t offset, std::uint64_t length) {
    if (offset < start_ || offset + length > start_ + bytes_.size()) {
      const std::uint64_t wanted = std::max(length, std::min(window_bytes, end_ - offset));
      bytes_.resize(wanted);
      start_ = offset;
      CO_CHECK(co_await read_padded(file_, start_, bytes_));
    }
    co_return std::span<const std::byte>(bytes_).subspan(offset - start_, length);
  }

 private:
  Medium& file_;
  std::uint64_t end_;
  std::uint64_t start_ = 0;
  std::vector<std::byte> bytes_;
};

// An entry with as much extra data as is kept, for parse_snapshot().
Task<std::vector<std::byte>> read_entry(Window& window, std::uint64_t at, const RawSnapshot& raw,
                                        ExtraData extra) {
  std::uint64_t kept = raw.extra_data_size;
  RawSnapshot head = raw;
  if (kept > snapshot_extra_bytes_max && extra == ExtraData::drop) {
    kept = snapshot_extra_bytes_max;
    head.extra_data_size = snapshot_extra_bytes_max;
  }
  kept = std::min<std::uint64_t>(kept, snapshot_extra_bytes_max);
  std::vector<std::byte> entry(bytes_of(head).begin(), bytes_of(head).end());
  CO_TRY(const auto data, co_await window.get(at + sizeof(raw), kept));
  entry.insert(entry.end(), data.begin(), data.end());
  const std::uint64_t text_at = at + sizeof(raw) + raw.extra_data_size;
  const std::uint64_t text_bytes = std::uint64_t{raw.id_size} + raw.name_size;
  CO_TRY(const auto text, co_await window.get(text_at, text_bytes));
  entry.insert(entry.end(), text.begin(), text.end());
  co_return std::move(entry);
}

}  // namespace

Task<Header> read_header(Medium& file) {
  std::vector<std::byte> bytes(std::min<std::uint64_t>(file.size(), 4 * KiB));
  CO_CHECK(co_await read_padded(file, 0, bytes));
  CO_TRY(const std::uint64_t cluster_size, claimed_cluster_size(bytes));
  const std::uint64_t wanted = std::min(file.size(), cluster_size);
  if (wanted > bytes.size()) {
    bytes.resize(wanted);
    CO_CHECK(co_await read_padded(file, 0, bytes));
  }
  co_return parse_header(bytes, file.size());
}

Task<SnapshotTable> read_snapshots(Medium& file, const Header& header, ExtraData extra) {
  SnapshotTable table;
  if (header.snapshot_count == 0) co_return std::move(table);
  const std::uint64_t start = header.snapshots_offset;
  const std::uint64_t end_max = start + snapshot_table_bytes_max;
  Window window(file, end_max + snapshot_entry_bytes_max);
  std::uint64_t at = start;
  for (std::uint32_t index = 0; index < header.snapshot_count; ++index) {
    at = align_up(at, 8);
    CO_TRY(const auto head, co_await window.get(at, sizeof(RawSnapshot)));
    const RawSnapshot raw = *ByteReader(head).take<RawSnapshot>();
    const std::uint64_t bytes =
        sizeof(raw) + std::uint64_t{raw.extra_data_size} + raw.id_size + raw.name_size;
    if (raw.extra_data_size > snapshot_extra_bytes_max && extra == ExtraData::drop) ++table.cut;
    if (at + bytes > end_max && (extra == ExtraData::drop || bytes < snapshot_entry_bytes_max)) {
      co_return failure(Errc::corrupt,
                        fmt::format("qcow2: the snapshot table is longer than {} bytes",
                                    snapshot_table_bytes_max));
    }
    CO_TRY(const std::vector<std::byte> entry, co_await read_entry(window, at, raw, extra));
    CO_TRY(ParsedSnapshot parsed, parse_snapshot(entry, index, extra));
    if (header.version >= 3 && raw.extra_data_size < extra_data_v3) ++table.incomplete;
    table.snapshots.push_back(std::move(parsed.snapshot));
    at += bytes;
  }
  table.bytes = at - start;
  co_return std::move(table);
}

bool has_bitmaps(const Header& header) {
  return header.bitmaps.has_value() && (header.autoclear_features & autoclear::bitmaps) != 0;
}

Task<std::vector<Bitmap>> read_bitmaps(Medium& file, const Header& header) {
  if (!has_bitmaps(header)) co_return std::vector<Bitmap>();
  const BitmapsExtension& where = *header.bitmaps;
  if (!Range{where.directory_offset, where.directory_size}.lies_within(file.size() +
                                                                       header.cluster_size())) {
    co_return failure(
        Errc::corrupt,
        fmt::format("qcow2: the bitmap directory of {} bytes at {:#x} lies behind the "
                    "end of the file",
                    where.directory_size, where.directory_offset));
  }
  std::vector<std::byte> directory(where.directory_size);
  CO_CHECK(co_await read_padded(file, where.directory_offset, directory));
  co_return parse_bitmap_directory(directory, where.count, header.geometry, header.size);
}

}  // namespace formats::qcow2
