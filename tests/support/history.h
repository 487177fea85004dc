// history.h - what was done to some bytes, and what each of them may be after the power failed:
// what was durable is there, or something that came later; nothing is there that was never written
// to that very place.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

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

  // "" or the first byte of what was found from `offset` on that can't be. `first`: what was there
  // before all this, as long as `found`.
  std::string objection(std::uint64_t offset, std::string_view found,
                        std::string_view first) const {
    const std::vector<std::uint64_t> bounds = borders({offset, found.size()});
    for (std::size_t i = 0; i + 1 < bounds.size(); ++i) {
      const std::vector<std::string_view> allowed =
          may_be({bounds[i], bounds[i + 1] - bounds[i]}, first.substr(bounds[i] - offset));
      for (std::uint64_t at = bounds[i]; at < bounds[i + 1]; ++at) {
        const char byte = found[at - offset];
        const bool fine = std::ranges::any_of(
            allowed, [&](std::string_view each) { return each[at - bounds[i]] == byte; });
        if (!fine) return "byte " + std::to_string(at) + " is " + std::to_string(int{byte});
      }
    }
    return "";
  }

 private:
  // Where `range` and, within it, changes begin or end: between two of them all bytes have the
  // same history.
  std::vector<std::uint64_t> borders(Range range) const {
    std::vector<std::uint64_t> all{range.offset, range.end()};
    for (const Change& each : changes_) {
      for (const std::uint64_t at : {each.range.offset, each.range.end()}) {
        if (range.offset < at && at < range.end()) all.push_back(at);
      }
    }
    std::ranges::sort(all);
    all.erase(std::ranges::unique(all).begin(), all.end());
    return all;
  }
  // What may be there, byte by byte, in bytes of one history.
  std::vector<std::string_view> may_be(Range range, std::string_view first) const {
    std::vector<const Change*> here;
    std::uint64_t settled = 0;  // what ended before this began is gone
    for (const Change& each : changes_) {
      if (!each.range.overlaps(range)) continue;
      here.push_back(&each);
      if (each.durable) settled = std::max(settled, each.begun);
    }
    std::vector<std::string_view> allowed;
    if (settled == 0) allowed.push_back(first);
    for (const Change* each : here) {
      if (each->ended < settled) continue;
      allowed.push_back(std::string_view(each->data).substr(range.offset - each->range.offset));
    }
    return allowed;
  }
  std::deque<Change> changes_;
  std::uint64_t time_ = 0;
};

}  // namespace test
