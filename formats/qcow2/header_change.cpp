// header_change.cpp - the first cluster is put together again when an extension comes, changes or
// goes. A crash may tear the cluster, but no sector: so the header tells of a copy behind what is
// there while the rest is replaced, and each step is one sector.
#include <algorithm>
#include <optional>

#include "formats/qcow2/image.h"

namespace formats::qcow2 {
namespace {

constexpr std::uint64_t sector = 512;

std::uint64_t used(std::span<const std::byte> cluster) {
  std::uint64_t end = cluster.size();
  while (end > 0 && cluster[end - 1] == std::byte{0}) --end;
  return align_up(end, 8) + 8;  // the end of the extensions may be eight zeroes
}

}  // namespace

Task<> Image::replace_first_sector(std::span<const std::byte> cluster) {
  std::ranges::copy(cluster.first(sector), first_sector_.begin());
  CO_CHECK(co_await write_header());
  co_return co_await edges_.file->flush();
}

// The header on the medium becomes header_, extensions and all, at one moment, and durably.
// Errors: no_space, having changed nothing, when the cluster has no room.
Task<> Image::rewrite_header() {
  CO_TRY(const std::vector<std::byte> next, format_header(header_));
  std::vector<std::byte> now(next.size());
  const std::uint64_t there = std::min<std::uint64_t>(now.size(), edges_.file->size());
  const Buffers list{std::span(now).first(there)};
  CO_CHECK(co_await edges_.file->read(0, list));
  std::vector<std::uint64_t> changed;
  for (std::uint64_t at = 0; at < now.size(); at += sector) {
    if (!std::ranges::equal(std::span(now).subspan(at, sector),
                            std::span(next).subspan(at, sector))) {
      changed.push_back(at);
    }
  }
  if (changed.empty()) co_return ok;
  if (changed.size() == 1) {
    if (changed[0] == 0) co_return co_await replace_first_sector(next);
    const ConstBuffers bytes{std::span(next).subspan(changed[0], sector)};
    CO_CHECK(co_await edges_.file->write(changed[0], bytes));
    co_return co_await edges_.file->flush();
  }
  const std::uint64_t behind = std::max({used(now), used(next), sector});
  CO_TRY(const std::vector<std::byte> copy, format_header_at(header_, behind));
  const ConstBuffers rest{std::span(copy).subspan(behind)};
  CO_CHECK(co_await edges_.file->write(behind, rest));
  CO_CHECK(co_await edges_.file->flush());
  CO_CHECK(co_await replace_first_sector(copy));
  const ConstBuffers body{std::span(next).subspan(sector, behind - sector)};
  if (behind > sector) CO_CHECK(co_await edges_.file->write(sector, body));
  CO_CHECK(co_await edges_.file->flush());
  CO_CHECK(co_await replace_first_sector(next));
  // what is behind the end of the extensions says nothing
  const ConstBuffers zeroes{std::span(next).subspan(behind)};
  co_return co_await edges_.file->write(behind, zeroes);
}

}  // namespace formats::qcow2
