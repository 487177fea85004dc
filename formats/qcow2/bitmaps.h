// bitmaps.h - a dirty bitmap as the image keeps it: its entry in the directory, and what it takes
// of the file. bitmaps.cpp loads and stores them. Rule QF-3 of docs/qcow2.md.
#pragma once

#include <vector>

#include "formats/qcow2/bitmap_directory.h"

namespace formats::qcow2 {

struct StoredBitmap {
  Bitmap entry;
  std::vector<Range> clusters;  // of its table and its bits: whole ones, in bytes of the file
};

}  // namespace formats::qcow2
