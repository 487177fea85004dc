// history.h - what was done to some bytes, and what each of them may be after the power failed:
// what was durable is there, or something that came later; nothing is there that was never written
// to that very place.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <limits>
#include <string>

#include "graph/base/bytes.h"

namespace test {

class History {
 public:
  static constexpr std::uint64_t never = std::numeric_limits<std::uint64_t>::max();
  struct Change {
    Range range;
    std::string data;
    std::uint64_t begun;
    std::uint64_t ended = never;  // never: nobody knows whether it happened
    bool durable = false;
    bool certain = true;  // false: a discard, which may do nothing
  };

  // Each change writes another byte than those before it, as long as there are bytes.
  Change& begin(Range range) {
    changes_.push_back(Change{
        range, std::string(range.length, static_cast<char>(1 + changes_.size() % 255)), ++time_});
    return changes_.back();
  }
  void end(Change& change) { change.ended = ++time_; }
  std::uint64_t begin_flush() { return ++time_; }
  void end_flush(std::uint64_t begun) {
    for (Change& each : changes_) each.durable = each.durable || each.ended < begun;
  }
  const std::deque<Change>& changes() const { return changes_; }

  // `first`: what was there before all this.
  bool may_be(std::uint64_t at, char found, char first) const {
    std::uint64_t settled = 0;  // what ended before this began is gone
    for (const Change& each : changes_) {
      if (covers(each, at) && each.durable) settled = std::max(settled, each.begun);
    }
    if (settled == 0 && found == first) return true;
    return std::ranges::any_of(changes_, [&](const Change& each) {
      return covers(each, at) && each.ended >= settled &&
             each.data[at - each.range.offset] == found;
    });
  }

 private:
  static bool covers(const Change& each, std::uint64_t at) {
    return each.range.offset <= at && at < each.range.end();
  }
  std::deque<Change> changes_;
  std::uint64_t time_ = 0;
};

}  // namespace test
