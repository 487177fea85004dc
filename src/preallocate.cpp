#include "src/preallocate.h"

#include <algorithm>
#include <vector>

namespace app {
namespace {

constexpr std::uint64_t piece_bytes = 1 * MiB;      // written at a time
constexpr std::uint64_t reserved_bytes = 64 * MiB;  // reserved at a time

}  // namespace

Task<> preallocate(formats::qcow2::Medium& disk, Range range, formats::qcow2::Preallocation how,
                   const formats::qcow2::Progress& progress) {
  const bool writes = how == formats::qcow2::Preallocation::full;
  graph::ZeroFlags flags;
  flags.place_only = how == formats::qcow2::Preallocation::metadata;
  const std::uint64_t step = writes ? piece_bytes : reserved_bytes;
  const std::vector<std::byte> zeroes(writes ? step : 0);
  for (std::uint64_t done = 0; done < range.length;) {
    const Range piece{range.offset + done, std::min(step, range.length - done)};
    if (writes) {
      CO_CHECK(co_await write_bytes(disk, piece.offset, std::span(zeroes).first(piece.length)));
    } else {
      CO_CHECK(co_await disk.write_zeroes(piece, flags));
    }
    done += piece.length;
    progress(done, range.length);
  }
  co_return ok;
}

}  // namespace app
