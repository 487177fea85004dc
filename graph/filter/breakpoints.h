// breakpoints.h - stops requests where two of them race, for tests in the same process: who holds a
// blkdebug node lets one request come to a point, does something else, and lets it go on.
#pragma once

#include <string>
#include <string_view>

#include "graph/base/task.h"
#include "graph/debug_event.h"
#include "graph/node.h"

namespace graph {

class Breakpoints {
 public:
  virtual ~Breakpoints() = default;
  // The next request that comes to `event` stops there; the ones after it pass.
  virtual void suspend_at(DebugEvent event, std::string tag) = 0;
  virtual bool is_suspended(std::string_view tag) const = 0;
  virtual asio::awaitable<void> wait_suspended(std::string tag) = 0;
  // Lets the one that stopped first go on. Errors: invalid_argument when none has stopped.
  virtual Result<> resume(std::string_view tag) = 0;
  // Forgets where to stop, and lets all go on that have. Errors: invalid_argument when there is
  // neither. A request that stays suspended holds up every drain.
  virtual Result<> remove_breakpoint(std::string_view tag) = 0;
};

// Null: `node` is no blkdebug.
Breakpoints* breakpoints_of(Node& node);

}  // namespace graph
