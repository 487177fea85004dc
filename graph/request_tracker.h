// request_tracker.h - keeps a read-modify-write from overlapping any other write of the same node
// . Ordinary writes overlap each other freely.
#pragma once

#include <cstdint>
#include <list>

#include "graph/base/bytes.h"
#include "graph/base/task.h"
#include "graph/base/wait_queue.h"

namespace graph {

class RequestTracker {
 public:
  enum class Hold : std::uint8_t { shared, exclusive };
  struct Entry {
    Range range;
    Hold hold;
    bool operator==(const Entry&) const = default;
  };
  // A range that is being written, until destroyed.
  class Claim {
   public:
    Claim() = default;
    Claim(Claim&& other) noexcept
        : tracker_(std::exchange(other.tracker_, nullptr)), entry_(other.entry_) {}
    Claim& operator=(Claim&& other) noexcept {
      release();
      tracker_ = std::exchange(other.tracker_, nullptr);
      entry_ = other.entry_;
      return *this;
    }
    ~Claim() { release(); }
    void release();

   private:
    friend class RequestTracker;
    Claim(RequestTracker& tracker, std::list<Entry>::iterator entry)
        : tracker_(&tracker), entry_(entry) {}
    RequestTracker* tracker_ = nullptr;
    std::list<Entry>::iterator entry_;
  };

  // Waits until no conflicting claim is left; those who came first go first.
  asio::awaitable<Claim> claim(Range range, Hold hold);

 private:
  bool conflicts_before(std::list<Entry>::iterator self) const;
  std::list<Entry> entries_;  // in order of arrival, waiting ones too
  WaitQueue changed_;
};

}  // namespace graph
