// budget.h - what one connection may have in flight: requests and bytes, from admission until the
// last byte of the reply is sent. When it is used up the connection stops reading its socket
// (statement 120).
//
// A part of the bytes is the connection's own; beyond that it borrows from what the whole daemon
// has, and waits where others have borrowed all of it. So a client that hoards memory slows those
// that want much, and stops nobody.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>

#include "graph/base/memory_account.h"
#include "graph/base/wait_queue.h"

namespace nbd {

struct BudgetLimits {
  std::size_t requests = 256;
  std::size_t bytes = std::size_t{64} << 20;
  std::size_t own_bytes = 0;  // of them, what need not be borrowed
};

class Budget {
 public:
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
    explicit operator bool() const { return budget_ != nullptr; }

   private:
    friend class Budget;
    Share(Budget& budget, std::size_t bytes) : budget_(&budget), bytes_(bytes) {}
    Budget* budget_ = nullptr;
    std::size_t bytes_ = 0;
  };

  // Without `memory` nothing is borrowed: only the limits count.
  Budget(BudgetLimits limits, MemoryBranch* memory) : limits_(limits), memory_(memory) {}

  // An empty share when there is no room.
  Share try_take(std::size_t bytes) {
    if (!has_room_for(bytes)) return {};
    const std::size_t more = borrowed_with(bytes);
    if (more > 0 && !memory_->try_take(more)) return {};
    return enter(bytes);
  }
  // Waits for room; an empty share when `given_up` became true and wake() was called.
  asio::awaitable<Share> take(std::size_t bytes, const bool& given_up);

  bool idle() const { return requests_ == 0; }
  std::size_t borrowed() const { return borrowed_of(bytes_); }
  bool memory_is_short() const { return memory_ != nullptr && memory_->account().pressed(); }
  // Wakes whoever waits for room although there is none, to look at the world again.
  void wake() {
    changed_.notify_all();
    if (memory_ != nullptr) memory_->wake();
  }

 private:
  // One request of any size fits when nothing else is in flight.
  bool has_room_for(std::size_t bytes) const {
    return requests_ == 0 || (requests_ < limits_.requests &&
                              bytes <= limits_.bytes - std::min(limits_.bytes, bytes_));
  }
  std::size_t borrowed_of(std::size_t bytes) const {
    return memory_ == nullptr || bytes <= limits_.own_bytes ? 0 : bytes - limits_.own_bytes;
  }
  // What `bytes` more would borrow.
  std::size_t borrowed_with(std::size_t bytes) const {
    return borrowed_of(bytes_ + bytes) - borrowed_of(bytes_);
  }
  Share enter(std::size_t bytes) {
    ++requests_;
    bytes_ += bytes;
    return Share(*this, bytes);
  }
  void give_back(std::size_t bytes) {
    const std::size_t before = borrowed();
    --requests_;
    bytes_ -= bytes;
    if (const std::size_t less = before - borrowed(); less > 0) memory_->give(less);
    changed_.notify_all();
  }

  const BudgetLimits limits_;
  MemoryBranch* const memory_;
  std::size_t requests_ = 0;
  std::size_t bytes_ = 0;
  WaitQueue changed_;
};

}  // namespace nbd
