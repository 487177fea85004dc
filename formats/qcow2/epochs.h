// epochs.h - tells when everybody has let go of what was taken away. Each request that reads the
// mapping is in an epoch until it has ended. Who unlinks a cluster ends the epoch: once all
// requests of that one and older ones are gone, nobody can be reading or writing the cluster any
// more. Costs a request two additions, however many clusters it uses.
#pragma once

#include <asio/awaitable.hpp>
#include <cassert>
#include <cstdint>
#include <deque>
#include <utility>

#include "graph/base/wait_queue.h"

namespace formats::qcow2 {

class Epochs {
 public:
  // Being inside, until destroyed.
  class Pin {
   public:
    Pin() = default;
    Pin(Pin&& other) noexcept
        : epochs_(std::exchange(other.epochs_, nullptr)), epoch_(other.epoch_) {}
    Pin& operator=(Pin&& other) noexcept {
      release();
      epochs_ = std::exchange(other.epochs_, nullptr);
      epoch_ = other.epoch_;
      return *this;
    }
    ~Pin() { release(); }
    void release() {
      if (epochs_ != nullptr) std::exchange(epochs_, nullptr)->leave(epoch_);
    }

   private:
    friend class Epochs;
    Pin(Epochs& epochs, std::uint64_t epoch) : epochs_(&epochs), epoch_(epoch) {}
    Epochs* epochs_ = nullptr;
    std::uint64_t epoch_ = 0;
  };

  Epochs() = default;
  Epochs(const Epochs&) = delete;
  Epochs& operator=(const Epochs&) = delete;
  ~Epochs() { assert(inside_.size() == 1 && inside_.back() == 0); }

  Pin enter() {
    ++inside_.back();
    return {*this, current()};
  }
  // Ends the present epoch, if anybody is in it, and returns its number.
  std::uint64_t end();
  // Has everybody left it, and all before it?
  bool is_over(std::uint64_t epoch) const { return epoch < first_; }
  // Whoever waits holds no pin of it, or waits for itself.
  asio::awaitable<void> over(std::uint64_t epoch);

 private:
  std::uint64_t current() const { return first_ + inside_.size() - 1; }
  void leave(std::uint64_t epoch);

  std::uint64_t first_ = 1;              // the oldest epoch that may have somebody inside
  std::deque<std::uint64_t> inside_{0};  // how many, by epoch from first_ on; the last is open
  WaitQueue ended_;
};

}  // namespace formats::qcow2
