// doubt.h - what a file may hold when some of the operations on it failed: of each byte, every
// value that it may have.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "graph/base/bytes.h"

namespace test {

class Doubt {
 public:
  explicit Doubt(std::string_view content) {
    for (const char byte : content) may_be_.emplace_back(1, byte);
  }
  // Bytes were written: for sure, or perhaps. Where there were none, zeroes may be in between.
  void wrote(std::uint64_t offset, std::string_view data, bool surely) {
    while (may_be_.size() < offset + data.size()) may_be_.emplace_back(1, '\0');
    for (std::size_t i = 0; i < data.size(); ++i) {
      std::string& values = may_be_[offset + i];
      if (surely) values.clear();
      if (!values.contains(data[i])) values += data[i];
    }
  }
  void zeroed(Range range, bool surely) {
    wrote(range.offset, std::string(range.length, '\0'), surely);
  }
  // "" or the first byte that can't be.
  std::string objection(std::uint64_t offset, std::string_view found) const {
    for (std::size_t i = 0; i < found.size(); ++i) {
      if (offset + i < may_be_.size() && may_be_[offset + i].contains(found[i])) continue;
      return "byte " + std::to_string(offset + i) + " is " + std::to_string(int{found[i]});
    }
    return "";
  }

 private:
  std::vector<std::string> may_be_;
};

}  // namespace test
