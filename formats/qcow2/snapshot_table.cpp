#include "formats/qcow2/snapshot_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "formats/qcow2/layout.h"

namespace formats::qcow2 {
namespace {

constexpr std::uint64_t no_icount = std::numeric_limits<std::uint64_t>::max();

template <class T>
std::optional<T> at_start(std::span<const std::byte> bytes) {
  return ByteReader(bytes).take<T>();
}

// In the order of the structure; each is there only when the data is long enough.
void read_extra(Snapshot& snapshot, std::span<const std::byte> extra) {
  ByteReader reader(extra);
  if (const auto size = reader.take<Be<std::uint64_t>>()) snapshot.vm_state_size = *size;
  if (const auto size = reader.take<Be<std::uint64_t>>()) snapshot.disk_size = *size;
  if (const auto count = reader.take<Be<std::uint64_t>>(); count && *count != no_icount) {
    snapshot.icount = *count;
  }
  if (extra.size() > sizeof(RawSnapshotExtra)) {
    const auto rest = extra.subspan(sizeof(RawSnapshotExtra));
    snapshot.unknown_extra.assign(rest.begin(), rest.end());
  }
}

Result<> check_lengths(const Snapshot& snapshot) {
  const std::uint64_t extra = sizeof(RawSnapshotExtra) + snapshot.unknown_extra.size();
  if (snapshot.id.size() > 0xffff || snapshot.name.size() > 0xffff ||
      extra > snapshot_extra_bytes_max) {
    return failure(
        Errc::no_space,
        fmt::format("qcow2: a snapshot with an ID of {} bytes, a name of {} bytes and {} "
                    "bytes of extra data does not fit into the snapshot table",
                    snapshot.id.size(), snapshot.name.size(), extra));
  }
  return ok;
}

void append(std::vector<std::byte>& out, std::span<const std::byte> bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}

void append_entry(std::vector<std::byte>& out, const Snapshot& snapshot) {
  RawSnapshot raw;
  raw.l1_table_offset = snapshot.l1_table_offset;
  raw.l1_size = snapshot.l1_size;
  raw.id_size = static_cast<std::uint16_t>(snapshot.id.size());
  raw.name_size = static_cast<std::uint16_t>(snapshot.name.size());
  raw.date_seconds = snapshot.date_seconds;
  raw.date_nanoseconds = snapshot.date_nanoseconds;
  raw.vm_clock_nanoseconds = snapshot.vm_clock_nanoseconds;
  // too large for this field: then readers have to look at the extra data
  raw.vm_state_size =
      snapshot.vm_state_size > 0xffffffff ? 0 : static_cast<std::uint32_t>(snapshot.vm_state_size);
  raw.extra_data_size =
      static_cast<std::uint32_t>(sizeof(RawSnapshotExtra) + snapshot.unknown_extra.size());
  RawSnapshotExtra extra;
  extra.vm_state_size = snapshot.vm_state_size;
  extra.disk_size = snapshot.disk_size.value_or(0);
  extra.icount = snapshot.icount.value_or(no_icount);
  append(out, bytes_of(raw));
  append(out, bytes_of(extra));
  append(out, snapshot.unknown_extra);
  append(out, bytes_of(std::string_view(snapshot.id)));
  append(out, bytes_of(std::string_view(snapshot.name)));
}

}  // namespace

graph::Port port_of(const Snapshot& snapshot, std::uint64_t size) {
  graph::Port port;
  port.id = snapshot.id;
  port.name = snapshot.name;
  port.size = size;
  port.machine_state_size = snapshot.vm_state_size;
  port.taken = std::chrono::seconds(snapshot.date_seconds) +
               std::chrono::nanoseconds(snapshot.date_nanoseconds);
  port.machine_clock =
      std::chrono::nanoseconds(static_cast<std::int64_t>(snapshot.vm_clock_nanoseconds));
  port.instructions = snapshot.icount;
  return port;
}

std::optional<std::uint64_t> snapshot_entry_bytes(std::span<const std::byte> bytes) {
  const auto raw = at_start<RawSnapshot>(bytes);
  if (!raw) return std::nullopt;
  return align_up(
      sizeof(RawSnapshot) + std::uint64_t{raw->extra_data_size} + raw->id_size + raw->name_size, 8);
}

Result<ParsedSnapshot> parse_snapshot(std::span<const std::byte> bytes, std::uint32_t index,
                                      ExtraData extra) {
  const auto cut = [index] {
    return failure(Errc::corrupt, fmt::format("qcow2: snapshot table entry {} is cut off", index));
  };
  const auto raw = at_start<RawSnapshot>(bytes);
  if (!raw) return cut();
  ParsedSnapshot parsed;
  parsed.extra_data_size = raw->extra_data_size;
  std::uint64_t kept = raw->extra_data_size;
  if (kept > snapshot_extra_bytes_max) {
    if (extra == ExtraData::refuse) {
      return failure(Errc::corrupt,
                     fmt::format("qcow2: snapshot table entry {} has {} bytes of extra data, the "
                                 "most is {}",
                                 index, kept, snapshot_extra_bytes_max));
    }
    kept = snapshot_extra_bytes_max;
    parsed.is_cut = true;
  }
  Snapshot& snapshot = parsed.snapshot;
  snapshot.l1_table_offset = raw->l1_table_offset;
  snapshot.l1_size = raw->l1_size;
  snapshot.date_seconds = raw->date_seconds;
  snapshot.date_nanoseconds = raw->date_nanoseconds;
  snapshot.vm_clock_nanoseconds = raw->vm_clock_nanoseconds;
  snapshot.vm_state_size = raw->vm_state_size;

  parsed.plain_bytes =
      sizeof(RawSnapshot) + std::uint64_t{raw->extra_data_size} + raw->id_size + raw->name_size;
  parsed.bytes = align_up(parsed.plain_bytes, 8);
  if (parsed.plain_bytes > bytes.size()) return cut();
  read_extra(snapshot, bytes.subspan(sizeof(RawSnapshot), kept));
  ByteReader text(bytes.subspan(sizeof(RawSnapshot) + raw->extra_data_size));
  snapshot.id = *text.take_string(raw->id_size);
  snapshot.name = *text.take_string(raw->name_size);
  return parsed;
}

Result<std::vector<std::byte>> format_snapshots(std::span<const Snapshot> snapshots) {
  std::vector<std::byte> table;
  for (const Snapshot& each : snapshots) {
    CHECK(check_lengths(each));
    table.resize(align_up(table.size(), 8));
    append_entry(table, each);
  }
  if (snapshots.size() > snapshots_max || table.size() > snapshot_table_bytes_max) {
    return failure(
        Errc::no_space,
        fmt::format("qcow2: {} snapshots take {} bytes: the table has {} entries and {} bytes at "
                    "most",
                    snapshots.size(), table.size(), snapshots_max, snapshot_table_bytes_max));
  }
  return table;
}

}  // namespace formats::qcow2
