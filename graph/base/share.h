// share.h - how many calls of one file may be under way at once, so that a file whose calls hang
// leaves room for all others. What is too much waits in the file's own queue, first come, first
// served. Belongs to one worker.
#pragma once

#include <asio/awaitable.hpp>
#include <cstddef>
#include <utility>

#include "graph/base/wait_queue.h"

// What the files of an engine divide among themselves.
class Shares {
 public:
  // Together about `all`, one file at most `each`, and any file at least 1.
  Shares(std::size_t all, std::size_t each) : all_(all), each_(each) {}
  std::size_t running() const { return running_; }
  // Of one file, at this moment.
  std::size_t limit() const;

 private:
  friend class Share;
  const std::size_t all_;
  const std::size_t each_;
  std::size_t busy_ = 0;     // files with something under way
  std::size_t running_ = 0;  // calls of all files
};

class Share {
 public:
  // The right to make a call; it ends with its destruction.
  class Turn {
   public:
    Turn(Turn&& other) noexcept : share_(std::exchange(other.share_, nullptr)) {}
    Turn& operator=(Turn&&) = delete;
    ~Turn() {
      if (share_ != nullptr) share_->leave();
    }

   private:
    friend class Share;
    explicit Turn(Share& share) : share_(&share) {}
    Share* share_;
  };

  // Lifetime: `shares` outlives the share, and the share its turns.
  explicit Share(Shares& shares) : shares_(shares) {}
  Share(const Share&) = delete;
  Share& operator=(const Share&) = delete;
  ~Share();
  asio::awaitable<Turn> enter();
  std::size_t running() const { return running_; }

 private:
  void take();
  void leave();
  Shares& shares_;
  std::size_t running_ = 0;
  std::size_t waiting_ = 0;
  WaitQueue queue_;
};
