// turns.h - one at a time, first come, first served.
#pragma once

#include <cstdint>
#include <utility>

#include "graph/base/wait_queue.h"

namespace app::control {

class Turns {
 public:
  // Whoever holds it is the only one.
  class Turn {
   public:
    Turn() = default;
    Turn(Turn&& other) noexcept : turns_(std::exchange(other.turns_, nullptr)) {}
    Turn& operator=(Turn&& other) noexcept {
      end();
      turns_ = std::exchange(other.turns_, nullptr);
      return *this;
    }
    ~Turn() { end(); }

   private:
    friend class Turns;
    explicit Turn(Turns& turns) : turns_(&turns) {}
    void end() {
      if (turns_ == nullptr) return;
      ++turns_->ended_;
      std::exchange(turns_, nullptr)->changed_.notify_all();
    }
    Turns* turns_ = nullptr;
  };

  asio::awaitable<Turn> take() {
    const std::uint64_t mine = taken_++;
    while (ended_ != mine) co_await changed_.wait();
    co_return Turn(*this);
  }

 private:
  std::uint64_t taken_ = 0;
  std::uint64_t ended_ = 0;
  WaitQueue changed_;
};

}  // namespace app::control
