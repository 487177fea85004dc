// flush.h - flushes of one node, one at a time, those that wait sharing the next (F-3): N waiting
// flushes need at most two of the device's.
#pragma once

#include <cstdint>
#include <memory>

#include "graph/base/task.h"
#include "graph/base/wait_queue.h"

namespace graph {

class Node;
enum class FlushDepth : std::uint8_t {
  disk,      // durable
  children,  // F-4: out of our memory, not waiting for any medium
};

class FlushQueue {
 public:
  Task<> flush(Node& node, FlushDepth depth);

 private:
  struct Batch {
    FlushDepth depth = FlushDepth::children;
    bool done = false;
    Result<> result;
  };
  std::shared_ptr<Batch> next_;  // not started: who comes now is covered by it
  bool running_ = false;
  WaitQueue finished_;
};

// F-2: own caches, own medium, then every child that is written through.
Task<> flush_node(Node& node, FlushDepth depth);

}  // namespace graph
