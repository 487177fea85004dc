// qcow2_chain.h - a disk of three layers on a simulated disk: raw, qcow2, qcow2, each shorter than
// the next and none of a round size; or one image with an external data file.
#pragma once

#include <string>

#include "tests/support/qcow2_stack.h"

namespace test {

enum class DataFile : std::uint8_t { none, external, raw };

struct ChainShape {
  std::uint32_t version = 3;
  formats::qcow2::Geometry geometry;
  bool layers = true;  // false: the top alone
  DataFile data = DataFile::none;
  bool lazy = false;
  std::uint64_t clusters = 100;  // of the top, about
};

class Qcow2Chain {
 public:
  // Makes the images "top", and "middle" and "base", or "data".
  Qcow2Chain(sim::Disk& disk, sim::World& world, const ChainShape& shape);

  // What the top shows at first.
  const std::string& content() const { return content_; }
  std::uint64_t size() const { return content_.size(); }
  // Of the top's node, with few tables in memory.
  Qcow2Stack::Keys keys() const;
  // Where the operations go: several stretches, so that tables are evicted.
  std::uint64_t any_offset(sim::Scheduler& dice) const;

 private:
  ChainShape shape_;
  std::string content_;
};

// Bytes that differ, from a number.
std::string bytes_from(std::uint64_t seed, std::size_t length);

}  // namespace test
