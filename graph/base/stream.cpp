#include "graph/base/stream.h"

Task<> read_exactly(Stream& stream, std::span<std::byte> out) {
  while (!out.empty()) {
    CO_TRY(const std::size_t n, stream.read_now(out));
    if (n == 0) CO_CHECK(co_await stream.readable());
    out = out.subspan(n);
  }
  co_return ok;
}

Task<> write_all(Stream& stream, const ConstBuffers& data) {
  std::size_t sent = 0;
  while (sent < data.size()) {
    const ConstBuffers rest = data.slice(sent, data.size() - sent);
    CO_TRY(const std::size_t n, stream.write_now(rest));
    if (n == 0) CO_CHECK(co_await stream.writable());
    sent += n;
  }
  co_return ok;
}
