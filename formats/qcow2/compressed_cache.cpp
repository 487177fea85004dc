#include "formats/qcow2/compressed_cache.h"

#include <algorithm>
#include <utility>

#include "formats/qcow2/compress.h"

namespace formats::qcow2 {
namespace {
constexpr std::size_t bytes_max = 4 * MiB;
constexpr std::size_t few = 2;  // entries, however large
}  // namespace

std::size_t CompressedCache::entries_max() const {
  return std::max<std::size_t>(few, bytes_max / std::max<std::uint64_t>(cluster_size_, 64 * KiB));
}

Task<CompressedCache::Content> CompressedCache::get(graph::Edge& file, Home& home, Share& share,
                                                    Compression how, Range place) {
  const auto found = std::ranges::find_if(
      kept_, [place](const std::shared_ptr<Entry>& entry) { return entry->place == place; });
  if (found != kept_.end()) {
    const std::shared_ptr<Entry> entry = *found;
    kept_.splice(kept_.begin(), kept_, found);
    while (!entry->ready) co_await filled_.wait();
    if (entry->error) co_return std::unexpected(*entry->error);
    co_return entry->content;
  }
  const auto entry = std::make_shared<Entry>();
  entry->place = place;
  kept_.push_front(entry);
  while (kept_.size() > entries_max() && kept_.back()->ready) kept_.pop_back();
  Result<> done = co_await fill(*entry, file, home, share, how);
  entry->ready = true;
  if (!done) {
    entry->error = std::move(done).error();
    std::erase(kept_, entry);
  }
  filled_.notify_all();
  if (entry->error) co_return std::unexpected(*entry->error);
  co_return entry->content;
}

Task<> CompressedCache::fill(Entry& entry, graph::Edge& file, Home& home, Share& share,
                             Compression how) {
  // the last sector may lie behind the end of the file
  const std::uint64_t size = file.size();
  if (entry.place.offset >= size) co_return ok;
  const std::uint64_t length = std::min(entry.place.length, size - entry.place.offset);
  PooledBuffer raw(home.buffers, length);
  const Buffers list(raw.bytes());
  if (file.is_watched()) co_await file.event(graph::DebugEvent::read_compressed);
  CO_CHECK(co_await file.read(entry.place.offset, list));
  auto cluster = std::make_shared<std::vector<std::byte>>(cluster_size_);
  bool good = false;
  std::function<void()> work = [&] { good = decompress(how, raw.bytes(), *cluster); };
  co_await home.helpers.run(share, std::move(work));
  if (good) entry.content = std::move(cluster);
  co_return ok;
}

void CompressedCache::forget(Range host) {
  std::erase_if(
      kept_, [host](const std::shared_ptr<Entry>& entry) { return entry->place.overlaps(host); });
}

}  // namespace formats::qcow2
