#include "graph/dirty_bitmap.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace graph {

DirtyBitmap::DirtyBitmap(std::string name, std::uint64_t granularity, std::uint64_t size,
                         BitmapTraits traits)
    : name_(std::move(name)),
      granularity_(granularity),
      size_(size),
      traits_(traits),
      bits_(granules_in(size)) {
  assert(is_power_of_two(granularity) && granularity >= bitmap_granularity_min);
}

std::uint64_t DirtyBitmap::granules_in(std::uint64_t size) const {
  return size / granularity_ + (size % granularity_ == 0 ? 0 : 1);
}

// The granules of what of `range` lies in the bitmap.
SparseBits::Part DirtyBitmap::touched(Range range) const {
  if (range.offset >= size_ || range.empty()) return {};
  const std::uint64_t end = range.offset + std::min(range.length, size_ - range.offset);
  const std::uint64_t first = range.offset / granularity_;
  return {first, granules_in(end) - first};
}

void DirtyBitmap::mark(Range range) { bits_.fill(touched(range), Bit::one); }

void DirtyBitmap::clean(Range range) {
  if (range.offset >= size_) return;
  const std::uint64_t end = range.offset + std::min(range.length, size_ - range.offset);
  const std::uint64_t first = granules_in(range.offset);
  const std::uint64_t last = end == size_ ? bits_.length() : end / granularity_;
  if (first < last) bits_.fill({first, last - first}, Bit::zero);
}

void DirtyBitmap::merge(const DirtyBitmap& other) {
  assert(other.size_ == size_);
  if (other.granularity_ == granularity_) {
    bits_.add(other.bits_);
    return;
  }
  for (std::uint64_t granule = 0; granule < other.granules();) {
    const SparseBits::Run run = other.bits_.run_at(granule);
    if (run.value == Bit::one) {
      mark({granule * other.granularity_, run.length * other.granularity_});
    }
    granule += run.length;
  }
}

void DirtyBitmap::resize(std::uint64_t size) {
  size_ = size;
  bits_.resize(granules_in(size));
}

std::vector<DirtyBitmap::Extent> DirtyBitmap::extents(Range range, std::size_t extents_max) const {
  assert(range.lies_within(size_) && !range.empty());
  std::vector<Extent> found;
  for (std::uint64_t at = range.offset; at < range.end() && found.size() < extents_max;) {
    const std::uint64_t granule = at / granularity_;
    const SparseBits::Run run = bits_.run_at(granule);
    const bool to_the_end = granule + run.length == bits_.length();
    const std::uint64_t end = to_the_end ? size_ : (granule + run.length) * granularity_;
    Extent extent;
    extent.length = std::min(end, range.end()) - at;
    extent.dirty = run.value == Bit::one;
    found.push_back(extent);
    at += extent.length;
  }
  return found;
}

std::uint64_t DirtyBitmap::dirty_bytes_in(Range range) const {
  assert(range.lies_within(size_));
  const SparseBits::Part part = touched(range);
  if (part.length == 0) return 0;
  // the granules at the ends belong to the range in part
  const auto dirty_within = [&](std::uint64_t granule) -> std::uint64_t {
    if (bits_.run_at(granule).value == Bit::zero) return 0;
    const std::uint64_t start = std::max(granule * granularity_, range.offset);
    return std::min(range.end() - start, (granule + 1) * granularity_ - start);
  };
  if (part.length == 1) return dirty_within(part.start);
  return dirty_within(part.start) + dirty_within(part.end() - 1) +
         bits_.ones_in({part.start + 1, part.length - 2}) * granularity_;
}

Result<> check_bitmap(const std::string& name, std::uint64_t granularity, std::uint64_t size) {
  const auto refuse = [](std::string why) {
    return failure(Errc::invalid_argument, std::move(why));
  };
  if (name.empty()) return refuse("Bitmap name cannot be empty");
  if (granularity < bitmap_granularity_min || !is_power_of_two(granularity)) {
    return refuse("Granularity must be power of 2 and at least 512");
  }
  if (granularity > bitmap_granularity_max) {
    return refuse("Granularity must be at most " + std::to_string(bitmap_granularity_max));
  }
  if (name.size() > bitmap_name_max) return refuse("Bitmap name too long: " + name);
  if ((size - (size > 0 ? 1 : 0)) / granularity >= bitmap_bits_max) {
    return refuse("A granularity of " + std::to_string(granularity) + " makes more than " +
                  std::to_string(bitmap_bits_max) + " bits for " + std::to_string(size) +
                  " bytes: take a larger one");
  }
  return ok;
}

}  // namespace graph
