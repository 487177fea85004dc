// refusals.h - tells of peers that an allow list keeps out, without letting a flood of them fill
// the log.
#pragma once

#include <optional>
#include <string>

#include "graph/base/clock.h"
#include "graph/base/log.h"
#include "src/peer.h"

namespace app {

class Refusals {
 public:
  // `where`: the listener, for the log.
  // Lifetime: `clock` and `log` outlive it.
  Refusals(Clock& clock, Log& log, std::string where)
      : clock_(clock), log_(log), where_(std::move(where)) {}

  // A line for the first few peers of each interval; the others are counted.
  void note(const Peer& peer);
  // Says how many were counted since the last line.
  void sum_up();

 private:
  Clock& clock_;
  Log& log_;
  const std::string where_;
  std::optional<Clock::Time> begin_;  // of the interval
  std::size_t named_ = 0;
  std::size_t counted_ = 0;
};

}  // namespace app
