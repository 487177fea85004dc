// gate.h - counts work in flight and can be closed: new work waits or is turned away, and the
// closer waits until what was inside has left. Drain, stop and close are built on it.
#pragma once

#include <asio/awaitable.hpp>
#include <cassert>
#include <cstddef>
#include <utility>

#include "graph/base/wait_queue.h"

class Gate {
 public:
  // The right to be inside; leaving is its destruction.
  class Pass {
   public:
    Pass() = default;
    Pass(Pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
    Pass& operator=(Pass&& other) noexcept {
      if (this != &other) {
        release();
        gate_ = std::exchange(other.gate_, nullptr);
      }
      return *this;
    }
    ~Pass() { release(); }
    void release() {
      if (gate_ != nullptr) std::exchange(gate_, nullptr)->leave();
    }
    explicit operator bool() const { return gate_ != nullptr; }

   private:
    friend class Gate;
    explicit Pass(Gate& gate) : gate_(&gate) {}
    Gate* gate_ = nullptr;
  };

  Gate() = default;
  Gate(const Gate&) = delete;
  Gate& operator=(const Gate&) = delete;
  ~Gate() { assert(inside_ == 0); }

  // An empty pass when closed.
  Pass try_enter() {
    if (closed()) return {};
    ++inside_;
    return Pass(*this);
  }
  // Enters although closed, for work that belongs to work already inside.
  Pass enter_anyway() {
    ++inside_;
    return Pass(*this);
  }
  // Waits until the gate is open. An empty pass when it was shut.
  asio::awaitable<Pass> enter();

  void close() { ++closed_; }  // nests: as many open() as close()
  void open();
  // Closes for good: nobody enters any more, and who waits to is sent away.
  void shut();
  bool closed() const { return closed_ > 0 || shut_; }
  std::size_t inside() const { return inside_; }
  // Returns when nobody is inside.
  asio::awaitable<void> drained();

 private:
  void leave() {
    assert(inside_ > 0);
    if (--inside_ == 0) leavers_.notify_all();
  }
  std::size_t inside_ = 0;
  int closed_ = 0;
  bool shut_ = false;
  WaitQueue entrants_;
  WaitQueue leavers_;
};
