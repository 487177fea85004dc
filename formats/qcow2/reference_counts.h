// reference_counts.h - how often each host cluster is referred to, counted in memory that grows
// with the references, not with the file.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>

namespace formats::qcow2 {

class ReferenceCounts {
 public:
  ReferenceCounts() = default;
  ReferenceCounts(const ReferenceCounts&) = delete;
  ReferenceCounts& operator=(const ReferenceCounts&) = delete;

  std::uint64_t get(std::uint64_t cluster) const;
  void add(std::uint64_t cluster);
  // Requires: it is counted.
  void remove(std::uint64_t cluster);
  // The first cluster from `cluster` on that is counted.
  std::optional<std::uint64_t> next(std::uint64_t cluster) const;
  // The first of `n` clusters in a row, from `cluster` on, that are not counted.
  std::uint64_t find_free(std::uint64_t cluster, std::uint64_t n) const;

 private:
  static constexpr std::uint64_t chunk_clusters = 512;
  static constexpr std::uint16_t large = 0xffff;  // look into large_
  using Chunk = std::array<std::uint16_t, chunk_clusters>;
  Chunk* find(std::uint64_t cluster) const;
  void set(std::uint64_t cluster, std::uint64_t count);

  std::map<std::uint64_t, std::unique_ptr<Chunk>> chunks_;
  std::unordered_map<std::uint64_t, std::uint64_t> large_;
  // Neighbours are asked for one after the other.
  mutable std::uint64_t last_number_ = ~std::uint64_t{0};
  mutable Chunk* last_ = nullptr;
};

}  // namespace formats::qcow2
