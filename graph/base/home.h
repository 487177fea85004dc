// home.h - what a worker lends to the graphs that live on it.
#pragma once

#include <asio/any_io_executor.hpp>

#include "graph/base/buffer.h"
#include "graph/base/clock.h"
#include "graph/base/engine.h"
#include "graph/base/helpers.h"
#include "graph/base/log.h"
#include "graph/base/memory_account.h"

// Lifetime: everything named here outlives each node, view and connection of the worker.
struct Home {
  asio::any_io_executor executor;
  Clock& clock;
  Engine& engine;
  BufferPool& buffers;
  Log& log;
  Helpers& helpers;
  MemoryBranch* memory = nullptr;  // none: requests are limited per connection only
};
