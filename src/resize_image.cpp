#include "src/resize_image.h"

#include <fmt/format.h>

#include <algorithm>

#include "src/one_image.h"
#include "src/preallocate.h"
#include "src/progress.h"

namespace app {
namespace {

using formats::qcow2::Preallocation;
using Step = ResizeCommand::Step;

constexpr std::uint64_t sector = 512;  // QEMU cuts a qcow2 disk to a multiple of this

std::unexpected<Error> refuse(const ResizeCommand& command, std::string_view why) {
  return failure(Errc::invalid_argument, fmt::format("{}: {}", command.image, why));
}

Result<std::uint64_t> new_size_of(const ResizeCommand& command, std::uint64_t old_size) {
  std::uint64_t size = command.bytes;
  if (command.step == Step::by) {
    const auto sum = checked_add(old_size, command.bytes);
    if (!sum) return refuse(command, "the new size is too large");
    size = *sum;
  } else if (command.step == Step::less) {
    size = old_size - std::min(old_size, command.bytes);
  }
  if (size == 0) return refuse(command, "the new size must be positive");
  return size;
}

Result<> check_change(const ResizeCommand& command, const std::string& format,
                      std::uint64_t old_size, std::uint64_t size) {
  const bool is_qcow2 = format == "qcow2";
  if (is_qcow2 && !is_aligned(size, sector)) {
    return refuse(command, fmt::format("the new size, {} bytes, must be a multiple of 512", size));
  }
  if (!is_qcow2 && command.preallocation == Preallocation::metadata) {
    return refuse(command, "a raw image has no metadata: --preallocation is off, falloc or full");
  }
  if (size <= old_size && command.preallocation != Preallocation::off) {
    return refuse(command, "--preallocation is for an image that becomes larger");
  }
  if (size >= old_size || command.may_shrink) return ok;
  return refuse(command, fmt::format("what is behind byte {} would be lost: add --shrink", size));
}

Task<> change(OneImage& image, const ResizeCommand& command) {
  graph::BlockBackend& disk = image.view();
  const std::uint64_t old_size = disk.size();
  CO_TRY(const std::uint64_t size, new_size_of(command, old_size));
  CO_CHECK(check_change(command, image.format(), old_size, size));
  CO_CHECK(co_await disk.resize(size));
  if (command.preallocation == Preallocation::off) co_return ok;
  ProgressLine line;
  const formats::qcow2::Progress progress = [&line](std::uint64_t done, std::uint64_t total) {
    line.show(done, total);
  };
  formats::qcow2::MediumOf<graph::BlockBackend> medium(disk);
  const Range added{old_size, size - old_size};
  co_return co_await preallocate(medium, added, command.preallocation, progress);
}

}  // namespace

Task<int> resize_image(Worker& worker, const ResizeCommand& command, Drivers drivers) {
  OneImage image(worker.home(), drivers);
  // what lies below decides what is new: zeroes, however long the layer there is
  CO_CHECK(co_await image.open(command.image, command.format, Layers::all, FileUse::change));
  const Result<> done = co_await change(image, command);
  const Result<> closed = co_await image.close();
  if (!done) co_return std::unexpected(done.error());
  if (!closed) co_return std::unexpected(closed.error());
  co_return EXIT_SUCCESS;
}

}  // namespace app
