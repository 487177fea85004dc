#include "formats/qcow2/reference_counts.h"

#include <cassert>

namespace formats::qcow2 {

ReferenceCounts::Chunk* ReferenceCounts::find(std::uint64_t cluster) const {
  const std::uint64_t number = cluster / chunk_clusters;
  if (number == last_number_) return last_;
  const auto found = chunks_.find(number);
  if (found == chunks_.end()) return nullptr;
  last_number_ = number;
  last_ = found->second.get();
  return last_;
}

std::uint64_t ReferenceCounts::get(std::uint64_t cluster) const {
  const Chunk* chunk = find(cluster);
  if (chunk == nullptr) return 0;
  const std::uint16_t count = (*chunk)[cluster % chunk_clusters];
  return count == large ? large_.at(cluster) : count;
}

void ReferenceCounts::set(std::uint64_t cluster, std::uint64_t count) {
  Chunk* chunk = find(cluster);
  if (chunk == nullptr) {
    auto& made = chunks_[cluster / chunk_clusters];
    made = std::make_unique<Chunk>();
    chunk = made.get();
  }
  if (count >= large) {
    large_[cluster] = count;
    count = large;
  } else if ((*chunk)[cluster % chunk_clusters] == large) {
    large_.erase(cluster);
  }
  (*chunk)[cluster % chunk_clusters] = static_cast<std::uint16_t>(count);
}

void ReferenceCounts::add(std::uint64_t cluster) { set(cluster, get(cluster) + 1); }

void ReferenceCounts::remove(std::uint64_t cluster) {
  const std::uint64_t count = get(cluster);
  assert(count > 0);
  set(cluster, count - 1);
}

std::optional<std::uint64_t> ReferenceCounts::next(std::uint64_t cluster) const {
  for (auto at = chunks_.lower_bound(cluster / chunk_clusters); at != chunks_.end(); ++at) {
    const std::uint64_t start = at->first * chunk_clusters;
    for (std::uint64_t i = cluster > start ? cluster - start : 0; i < chunk_clusters; ++i) {
      if ((*at->second)[i] != 0) return start + i;
    }
  }
  return std::nullopt;
}

std::uint64_t ReferenceCounts::find_free(std::uint64_t cluster, std::uint64_t n) const {
  for (;;) {
    const std::optional<std::uint64_t> taken = next(cluster);
    if (!taken || *taken - cluster >= n) return cluster;
    cluster = *taken + 1;
  }
}

}  // namespace formats::qcow2
