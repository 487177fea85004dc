// snapshot_table.h - the internal snapshots of an image, as entries of their table: parsed, checked
// and put together again. Pure: no I/O.
// Spec: qcow2.rst, "Snapshots".
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "graph/base/error.h"
#include "graph/port.h"

namespace formats::qcow2 {

struct Snapshot {
  std::uint64_t l1_table_offset = 0;  // not checked here
  std::uint32_t l1_size = 0;          // entries
  std::string id;
  std::string name;
  std::uint32_t date_seconds = 0;  // since the epoch
  std::uint32_t date_nanoseconds = 0;
  std::uint64_t vm_clock_nanoseconds = 0;
  std::uint64_t vm_state_size = 0;         // bytes
  std::optional<std::uint64_t> disk_size;  // bytes; old entries leave it out
  std::optional<std::uint64_t> icount;     // instructions of the guest, where they are counted
  std::vector<std::byte> unknown_extra;    // what follows these, kept as it is
  bool operator==(const Snapshot&) const = default;
};

// As the graph knows it. `size`: of its disk, which old entries leave out; bytes.
graph::Port port_of(const Snapshot& snapshot, std::uint64_t size);

struct ParsedSnapshot {
  Snapshot snapshot;
  std::uint64_t bytes = 0;            // of the entry, with its padding
  std::uint64_t plain_bytes = 0;      // without
  std::uint32_t extra_data_size = 0;  // as it stands there
  bool is_cut = false;                // extra data was dropped
};

// What becomes of more extra data than anybody writes.
enum class ExtraData : std::uint8_t { refuse, drop };

// The longest entry that parse_snapshot() takes, in bytes.
inline constexpr std::uint64_t snapshot_entry_bytes_max = 40 + 1024 + 2 * 65535 + 7;

// How many bytes the entry that starts like this has, with its padding; nothing if that can't be
// told yet.
std::optional<std::uint64_t> snapshot_entry_bytes(std::span<const std::byte> bytes);

// The entry at the start of `bytes`; entry `index` for messages.
// Errors: corrupt (bytes are missing; too much extra data).
Result<ParsedSnapshot> parse_snapshot(std::span<const std::byte> bytes, std::uint32_t index,
                                      ExtraData extra = ExtraData::refuse);

// A table with all of them. Its length is not padded.
// Errors: no_space when it has more bytes than a table may have, or an entry too much of anything.
Result<std::vector<std::byte>> format_snapshots(std::span<const Snapshot> snapshots);

}  // namespace formats::qcow2
