// compressed_cache.h - the clusters that were decompressed last, so that reading one in pieces
// costs one decompression. Whoever comes while it is under way waits for it.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <vector>

#include "formats/qcow2/layout.h"
#include "graph/base/wait_queue.h"
#include "graph/edge.h"

namespace formats::qcow2 {

class CompressedCache {
 public:
  using Content = std::shared_ptr<const std::vector<std::byte>>;  // null: it can't be decompressed
  explicit CompressedCache(std::uint64_t cluster_size) : cluster_size_(cluster_size) {}

  // The cluster whose compressed bytes are `place` of `file`. Errors: as reading the file.
  Task<Content> get(graph::Edge& file, Home& home, Share& share, Compression how, Range place);
  // What lies there is something else from now on.
  void forget(Range host);
  std::size_t bytes() const { return kept_.size() * cluster_size_; }

 private:
  struct Entry {
    Range place;
    bool ready = false;
    Content content;
    std::optional<Error> error;
  };
  Task<> fill(Entry& entry, graph::Edge& file, Home& home, Share& share, Compression how);
  std::size_t entries_max() const;

  const std::uint64_t cluster_size_;
  std::list<std::shared_ptr<Entry>> kept_;  // last used first
  WaitQueue filled_;
};

}  // namespace formats::qcow2
