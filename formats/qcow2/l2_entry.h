// l2_entry.h - what an entry of an L2 table says, and how far entries go on saying the same. Pure.
// Rules L-2 to L-4, L-6 of docs/qcow2.md. Spec: qcow2.rst, "Cluster mapping", "Extended L2
// Entries".
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <string>

#include "formats/qcow2/geometry.h"
#include "graph/base/bytes.h"

namespace formats::qcow2 {

// As it stands in the table; `bitmap` is 0 without extended entries.
struct L2Entry {
  std::uint64_t descriptor = 0;
  std::uint64_t bitmap = 0;
  bool operator==(const L2Entry&) const = default;
};

L2Entry load_entry(std::span<const std::byte> table, const Geometry& geometry, std::uint64_t index);
void store_entry(std::span<std::byte> table, const Geometry& geometry, std::uint64_t index,
                 L2Entry entry);

// What the entries of an image may be.
struct EntryRules {
  Geometry geometry;
  bool zero_flag = true;       // version 3
  bool external_data = false;  // host offset == guest offset
};

// Where compressed data lies: bytes of the file, up to the end of its last sector.
struct CompressedPlace {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  bool operator==(const CompressedPlace&) const = default;
};

// An entry that was checked. Without extended entries the whole cluster is subcluster 0.
struct Cluster {
  bool compressed = false;
  bool copied = false;  // nobody else refers to the host cluster
  bool has_host = false;
  std::uint64_t host = 0;  // of the cluster's first byte, if it has one
  std::uint32_t data = 0;  // subclusters with data, by bit
  std::uint32_t zero = 0;  // subclusters that read as zero, by bit
  CompressedPlace place;   // if compressed
  bool operator==(const Cluster&) const = default;
};
// Errors: what is wrong with it, in words.
std::expected<Cluster, std::string> decode(L2Entry entry, const EntryRules& rules,
                                           std::uint64_t guest);
// The entry that says this. Requires: not compressed.
L2Entry encode(const Cluster& cluster, const EntryRules& rules);
// Errors (none): offset and length fit into the descriptor, or the optional is empty.
std::expected<L2Entry, std::string> encode_compressed(CompressedPlace place,
                                                      const EntryRules& rules);

enum class RunKind : std::uint8_t {
  below,       // the layer below has it
  zero,        // reads as zeroes
  data,        // at `host`
  compressed,  // `place` has the cluster that it is in
};
struct Run {
  RunKind kind = RunKind::below;
  bool reserved = false;     // below, zero: there is room for it at `host`
  bool copied = false;       // there it may be written in place
  std::uint64_t length = 0;  // bytes of the guest
  std::uint64_t host = 0;    // of the first byte
  CompressedPlace place;
};

// How the bytes from `guest` on are mapped, as far as they are in one way and in one place: at most
// `length` bytes, and not past the end of the slice. `slice` holds entries from that of `first` (a
// guest offset) on. Requires: guest lies within the slice. Errors: what is wrong, in words.
std::expected<Run, std::string> find_run(std::span<const std::byte> slice, std::uint64_t first,
                                         std::uint64_t guest, std::uint64_t length,
                                         const EntryRules& rules);

}  // namespace formats::qcow2
