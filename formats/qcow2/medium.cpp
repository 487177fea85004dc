#include "formats/qcow2/medium.h"

#include <algorithm>

namespace formats::qcow2 {

Task<> read_padded(Medium& medium, std::uint64_t offset, std::span<std::byte> out) {
  const std::uint64_t size = medium.size();
  const std::uint64_t there =
      offset < size ? std::min<std::uint64_t>(out.size(), size - offset) : 0;
  std::ranges::fill(out.subspan(there), std::byte{0});
  if (there == 0) co_return ok;
  const Buffers buffers(out.first(there));
  co_return co_await medium.read(offset, buffers);
}

Task<> write_bytes(Medium& medium, std::uint64_t offset, std::span<const std::byte> data) {
  const ConstBuffers buffers(data);
  co_return co_await medium.write(offset, buffers);
}

}  // namespace formats::qcow2
