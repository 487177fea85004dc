// read_metadata.h - header, snapshots and bitmaps of an image, read through a Medium and believed
// only as far as the limits of layout.h go.
#pragma once

#include <vector>

#include "formats/qcow2/bitmap_directory.h"
#include "formats/qcow2/header.h"
#include "formats/qcow2/medium.h"
#include "formats/qcow2/snapshot_table.h"

namespace formats::qcow2 {

// Errors: as parse_header(), with the file's.
Task<Header> read_header(Medium& file);

struct SnapshotTable {
  std::vector<Snapshot> snapshots;
  std::uint64_t bytes = 0;       // of the table in the file, without padding at its end
  std::uint32_t incomplete = 0;  // entries that lack what version 3 asks for
  std::uint32_t cut = 0;         // entries whose extra data was dropped
};
// Errors: corrupt, as parse_snapshot(), or when the table is too long; the file's.
Task<SnapshotTable> read_snapshots(Medium& file, const Header& header,
                                   ExtraData extra = ExtraData::refuse);

// None where the header says that there are none. Errors: as parse_bitmap_directory(); the file's.
Task<std::vector<Bitmap>> read_bitmaps(Medium& file, const Header& header);
bool has_bitmaps(const Header& header);

}  // namespace formats::qcow2
