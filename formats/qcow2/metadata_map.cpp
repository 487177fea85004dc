#include "formats/qcow2/metadata_map.h"

namespace formats::qcow2 {

bool MetadataMap::add(Range range) {
  bool fresh = true;
  if (range.empty()) return fresh;
  for (std::uint64_t cluster = first(range); cluster <= last(range); ++cluster) {
    auto bit = chunks_[cluster / chunk_clusters][cluster % chunk_clusters];
    fresh = fresh && !bit;
    bit = true;
  }
  return fresh;
}

void MetadataMap::remove(Range range) {
  if (range.empty()) return;
  for (std::uint64_t cluster = first(range); cluster <= last(range); ++cluster) {
    const auto chunk = chunks_.find(cluster / chunk_clusters);
    if (chunk == chunks_.end()) continue;
    chunk->second.reset(cluster % chunk_clusters);
    if (chunk->second.none()) chunks_.erase(chunk);
  }
}

bool MetadataMap::hits(Range range) const {
  if (range.empty()) return false;
  for (std::uint64_t cluster = first(range); cluster <= last(range); ++cluster) {
    const auto chunk = chunks_.find(cluster / chunk_clusters);
    if (chunk == chunks_.end()) {
      cluster |= chunk_clusters - 1;  // on to the next chunk
      continue;
    }
    if (chunk->second.test(cluster % chunk_clusters)) return true;
  }
  return false;
}

std::size_t MetadataMap::memory() const { return chunks_.size() * (sizeof(Chunk) + 64); }

}  // namespace formats::qcow2
