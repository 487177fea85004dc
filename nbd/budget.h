// budget.h - what one connection may have in flight: requests and bytes, from admission until the
// last byte of the reply is sent. When it is used up the connection stops reading its socket
// (statement 120).
#pragma once

#include <cstddef>
#include <utility>

#include "graph/base/wait_queue.h"

namespace nbd {

class Budget {
 public:
  static constexpr std::size_t requests_max = 256;
  static constexpr std::size_t bytes_max = std::size_t{64} << 20;

  // A request's share, given back when destroyed.
  class Share {
   public:
    Share() = default;
    Share(Share&& other) noexcept
        : budget_(std::exchange(other.budget_, nullptr)), bytes_(other.bytes_) {}
    Share& operator=(Share&& other) noexcept {
      std::swap(budget_, other.budget_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Share() {
      if (budget_ != nullptr) budget_->give_back(bytes_);
    }

   private:
    friend class Budget;
    Share(Budget& budget, std::size_t bytes) : budget_(&budget), bytes_(bytes) {}
    Budget* budget_ = nullptr;
    std::size_t bytes_ = 0;
  };

  // One request of any size fits when nothing else is in flight.
  bool has_room_for(std::size_t bytes) const {
    return requests_ == 0 ||
           (requests_ < requests_max && bytes <= bytes_max - std::min(bytes_max, bytes_));
  }
  Share take(std::size_t bytes) {
    ++requests_;
    bytes_ += bytes;
    return Share(*this, bytes);
  }
  asio::awaitable<void> changed() { return changed_.wait(); }
  bool idle() const { return requests_ == 0; }
  // Wakes whoever waits for room although there is none, to look at the world again.
  void wake() { changed_.notify_all(); }

 private:
  void give_back(std::size_t bytes) {
    --requests_;
    bytes_ -= bytes;
    changed_.notify_all();
  }
  std::size_t requests_ = 0;
  std::size_t bytes_ = 0;
  WaitQueue changed_;
};

}  // namespace nbd
