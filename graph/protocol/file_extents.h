// file_extents.h - where a file has data and where holes, as the file system says. Only data is
// remembered (S-5): saying data where there are zeroes by now is allowed, the opposite would be
// corruption (S-2).
#pragma once

#include <array>
#include <cstdint>

#include "graph/base/engine.h"
#include "graph/extent.h"

namespace graph {

class FileExtents {
 public:
  // Extents of [range.offset, range.end()), some or all.
  // Requires: the range is not empty and ends within `size`, the size that the file should have.
  SysTask<Extents> find(EngineFile& file, Range range, std::uint64_t size);
  // The answer of one who did not ask: all data.
  static Extents all_data(Range range);
  // What was data may be a hole from now on. Call when the change is made, not before.
  void forget();

 private:
  const Range* known_at(std::uint64_t offset) const;
  void remember(Range data);
  SysTask<Range> ask(EngineFile& file, std::uint64_t offset, std::uint64_t size);

  std::array<Range, 4> known_{};
  std::size_t next_ = 0;          // the one to replace
  std::uint64_t generation_ = 0;  // counts forget(): an older answer is not remembered
};

}  // namespace graph
