// qcow2_image.h - qcow2 images as bytes: an empty one of any shape, and an audit that shares no
// code with the driver beyond the layout: which references there are, and whether the counts cover
// them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "formats/qcow2/geometry.h"

namespace test {

struct Qcow2Shape {
  std::uint32_t version = 3;
  formats::qcow2::Geometry geometry;
  std::uint64_t size = 1 << 20;  // bytes
  std::string backing;           // "": none; its format is raw
  std::string data_file;         // "": none
  std::uint64_t incompatible = 0;
  std::uint64_t compatible = 0;
  std::uint64_t autoclear = 0;
  std::uint32_t table_clusters = 1;  // of refcounts
};

std::vector<std::byte> empty_qcow2(const Qcow2Shape& shape);

// What a look at the whole image says.
struct Qcow2Audit {
  std::vector<std::string>
      errors;                // what must never be: too few counted, pointers that lead nowhere
  std::uint64_t leaked = 0;  // clusters that nothing refers to and that are counted
  std::uint64_t used = 0;    // clusters that something refers to
};
Qcow2Audit audit_qcow2(const std::vector<std::byte>& file);

}  // namespace test
