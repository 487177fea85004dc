// helpers.h - threads of the worker for work that burns CPU, as a seam: in a simulation there are
// none. Who has much to do gets its share only.
#pragma once

#include <asio/awaitable.hpp>
#include <functional>
#include <memory>

#include "graph/base/share.h"

class Helpers {
 public:
  virtual ~Helpers() = default;

  // Runs `work` in a turn of `share`, on another thread while the caller waits. `work` touches
  // nothing that anybody else may touch meanwhile, and does not throw. Lifetime: what `work` refers
  // to outlives the task. Cancel: no.
  virtual asio::awaitable<void> run(Share& share, std::function<void()> work) = 0;
  // To be divided among those who have work.
  virtual Shares& shares() = 0;
};

// One thread for each processor, at most `threads_max`; none is started before the first work.
inline constexpr unsigned threads_max = 4;
std::unique_ptr<Helpers> make_helpers();
