#include "src/image_format.h"

#include <algorithm>
#include <array>

#include "src/probe.h"

namespace app {
namespace {

// As much of `out` as the file has.
SysTask<std::size_t> read_up_to(EngineFile& file, std::uint64_t offset, std::span<std::byte> out) {
  std::size_t filled = 0;
  while (filled < out.size()) {
    const Buffers rest(out.subspan(filled));
    const SysResult<std::size_t> n = co_await file.read(offset + filled, rest);
    if (!n) co_return n;
    if (*n == 0) break;
    filled += *n;
  }
  co_return filled;
}

struct Ends {
  std::array<std::byte, probe_head_size> head;
  std::array<std::byte, probe_tail_size> tail;
  std::size_t head_size = 0;
  std::size_t tail_size = 0;
};

SysTask<> read_ends(EngineFile& file, Ends& ends) {
  const SysResult<FileStatus> status = co_await file.status();
  if (!status) co_return std::unexpected(status.error());
  const SysResult<std::size_t> head = co_await read_up_to(file, 0, ends.head);
  if (!head) co_return std::unexpected(head.error());
  ends.head_size = *head;
  const std::uint64_t tail_start =
      status->size - std::min<std::uint64_t>(status->size, probe_tail_size);
  const SysResult<std::size_t> tail = co_await read_up_to(file, tail_start, ends.tail);
  if (!tail) co_return std::unexpected(tail.error());
  ends.tail_size = *tail;
  co_return SysResult<>();
}

}  // namespace

Task<std::string> format_of_image(Home& home, const std::string& image, std::string told) {
  if (!told.empty()) co_return std::move(told);
  const auto opened = co_await home.engine.open(image, OpenFlags());
  if (!opened) co_return std::unexpected(error_from_errno(opened.error().number, image));
  Ends ends;
  const SysResult<> read = co_await read_ends(**opened, ends);
  const SysResult<> closed = co_await (*opened)->close();
  if (!read) co_return std::unexpected(error_from_errno(read.error().number, image));
  if (!closed) co_return std::unexpected(error_from_errno(closed.error().number, image));
  co_return std::string(probe_format(std::span(ends.head).first(ends.head_size),
                                     std::span(ends.tail).first(ends.tail_size)));
}

Task<> refuse_other_formats(Home& home, const std::string& image) {
  CO_TRY(const std::string format, co_await format_of_image(home, image, ""));
  if (format == "raw") co_return ok;
  co_return failure(Errc::invalid_argument,
                    image + " looks like " + format + ": add --format " + format +
                        ", or --format raw to export its bytes as they are");
}

}  // namespace app
