// turned_away.h - tells the log of clients that were turned away, without letting a flood of them
// fill it: of each kind the first one at once, the others as a number.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "graph/base/gate.h"
#include "graph/base/home.h"

namespace nbd {

class TurnedAway {
 public:
  enum class Why : std::uint8_t { too_many, gives_way, too_slow, misbehaved, stopping };
  static constexpr std::size_t whys = 5;
  static constexpr Clock::Duration interval = std::chrono::seconds(10);

  // Lifetime: `home` outlives it.
  explicit TurnedAway(Home& home) : home_(home) {}
  // Requires: stop() has returned, or nobody was noted.
  ~TurnedAway();
  TurnedAway(const TurnedAway&) = delete;
  TurnedAway& operator=(const TurnedAway&) = delete;

  // `text`: what became of the client, for its own line.
  void note(Why why, std::string_view peer, std::string_view text);
  // What was counted is told; from here on there are no more lines.
  asio::awaitable<void> stop();

 private:
  struct Kind {
    std::size_t more = 0;          // since the last line
    std::unique_ptr<Timer> pause;  // while they are only counted
  };
  asio::awaitable<void> count(Why why, Kind& kind);

  Home& home_;
  std::array<Kind, whys> kinds_;
  Gate counting_;  // a pass for each kind that has a pause
  bool stopped_ = false;
};

}  // namespace nbd
