// byte_model.h - an image as it must be, where that is known, while operations on it go on beside
// each other: what those that overlap leave behind is unknown, everything else is not.
#pragma once

#include <algorithm>
#include <cstdint>
#include <list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graph/base/bytes.h"

namespace test {

class ByteModel {
 public:
  struct Pending {
    Range range;  // bytes of the file
    bool writes;
    std::vector<Range>
        shared;  // with others, one of them a writer, that were under way at the same time
  };
  using Handle = std::list<Pending>::iterator;

  explicit ByteModel(std::uint64_t size) : ByteModel(std::string(size, '\0')) {}
  explicit ByteModel(std::string content)
      : bytes_(std::move(content)),
        known_(bytes_.size(), true),
        perhaps_zero_(bytes_.size(), false) {}

  Handle begin(Range range, bool writes) {
    if (writes && range.end() > bytes_.size()) grow(range.end());
    Pending mine{range, writes, {}};
    for (Pending& other : pending_) {
      if (!other.range.overlaps(range) || !(writes || other.writes)) continue;
      const std::uint64_t start = std::max(range.offset, other.range.offset);
      const Range both{start, std::min(range.end(), other.range.end()) - start};
      mine.shared.push_back(both);
      other.shared.push_back(both);
    }
    return pending_.insert(pending_.end(), std::move(mine));
  }
  // `data`: what is there now; nothing: nobody knows.
  void end_write(Handle pending, std::optional<std::string> data) {
    const Range range = pending->range;
    for (std::uint64_t i = 0; i < range.length; ++i) {
      known_[range.offset + i] = data.has_value();
      perhaps_zero_[range.offset + i] = false;
      if (data) bytes_[range.offset + i] = (*data)[i];
    }
    forget_shared(*pending);
    pending_.erase(pending);
  }
  // Each byte is zero now, or what it was.
  void end_discard(Handle pending) {
    const Range range = pending->range;
    for (std::uint64_t at = range.offset; at < range.end(); ++at) perhaps_zero_[at] = true;
    forget_shared(*pending);
    pending_.erase(pending);
  }
  void end_unchanged(Handle pending) { pending_.erase(pending); }
  // The first byte of `data`, read from the range of `pending`, that is wrong.
  std::optional<std::uint64_t> end_read(Handle pending, const std::string& data) {
    std::optional<std::uint64_t> wrong;
    for (std::uint64_t i = 0; i < data.size() && !wrong; ++i) {
      const std::uint64_t at = pending->range.offset + i;
      if (!may_be(at, data[i]) && !is_shared(*pending, at)) wrong = at;
    }
    pending_.erase(pending);
    return wrong;
  }
  // The first byte of `zero`, which was said to read as zeroes, that does not.
  std::optional<std::uint64_t> first_not_zero(const Pending& pending, Range zero) const {
    for (std::uint64_t at = zero.offset; at < zero.end(); ++at) {
      if (!may_be(at, '\0') && !is_shared(pending, at)) return at;
    }
    return std::nullopt;
  }
  void resize(std::uint64_t size) {
    bytes_.resize(std::min<std::uint64_t>(size, bytes_.size()));
    known_.resize(bytes_.size());
    perhaps_zero_.resize(bytes_.size());
    grow(size);
  }
  bool idle() const { return pending_.empty(); }

 private:
  void grow(std::uint64_t size) {
    bytes_.resize(size, 0);
    known_.resize(size, true);
    perhaps_zero_.resize(size, false);
  }
  bool may_be(std::uint64_t at, char found) const {
    return !known_[at] || bytes_[at] == found || (perhaps_zero_[at] && found == 0);
  }
  void forget_shared(const Pending& pending) {
    for (const Range& both : pending.shared) {
      std::fill_n(known_.begin() + static_cast<std::ptrdiff_t>(both.offset), both.length, false);
    }
  }
  static bool is_shared(const Pending& pending, std::uint64_t at) {
    return std::ranges::any_of(
        pending.shared, [&](const Range& both) { return both.offset <= at && at < both.end(); });
  }
  std::string bytes_;
  std::vector<bool> known_;
  std::vector<bool> perhaps_zero_;
  std::list<Pending> pending_;
};

}  // namespace test
