#include "graph/filter/wanted_limits.h"

#include <algorithm>
#include <limits>

namespace graph {
namespace {

constexpr std::uint64_t limit_max = std::numeric_limits<std::int32_t>::max();

class LimitReader {
 public:
  explicit LimitReader(const OpenContext& context) : context_(context) {}

  // A power of two that is a multiple of `of`.
  Result<std::uint64_t> unit(std::string_view key, std::uint64_t of) const {
    TRY(const std::uint64_t value, length(key, of));
    if (value == 0 || is_power_of_two(value)) return value;
    return refuse(key, std::to_string(value) + " is no power of two");
  }
  // A multiple of `of`.
  Result<std::uint64_t> length(std::string_view key, std::uint64_t of) const {
    const std::uint64_t value = context_.options().bytes(key);
    if (value > limit_max) {
      return refuse(key, std::to_string(value) + " is more than " + std::to_string(limit_max));
    }
    if (value % of == 0) return value;
    return refuse(key, std::to_string(value) + " is no multiple of " + std::to_string(of));
  }

 private:
  std::unexpected<Error> refuse(std::string_view key, const std::string& why) const {
    const std::string what = "'" + std::string(key) + "': " + why;
    return context_.blame(key, Error(Errc::invalid_argument, context_.node_name() + ": " + what));
  }
  const OpenContext& context_;
};

void at_least(std::uint32_t& unit, std::uint64_t wanted) {
  unit = std::max(unit, static_cast<std::uint32_t>(wanted));
}

void at_most(std::uint64_t& max, std::uint64_t wanted) {
  if (wanted != 0) max = std::min(max, wanted);
}

}  // namespace

Limits WantedLimits::over(Limits image) const {
  at_least(image.request_alignment, align);
  at_least(image.zero_alignment, opt_write_zero);
  at_least(image.discard_alignment, opt_discard);
  at_most(image.max_transfer, max_transfer);
  at_most(image.max_zeroes, max_write_zero);
  at_most(image.max_discard, max_discard);
  return image;
}

Result<WantedLimits> read_wanted_limits(const OpenContext& context, const Limits& image) {
  const LimitReader reader(context);
  WantedLimits wanted;
  TRY(wanted.align, reader.unit("align", 1));
  const std::uint64_t unit = std::max<std::uint64_t>(wanted.align, image.request_alignment);
  TRY(wanted.max_transfer, reader.length("max-transfer", unit));
  TRY(wanted.opt_write_zero, reader.unit("opt-write-zero", unit));
  const std::uint64_t zero_unit = std::max(wanted.opt_write_zero, unit);
  TRY(wanted.max_write_zero, reader.length("max-write-zero", zero_unit));
  TRY(wanted.opt_discard, reader.unit("opt-discard", unit));
  TRY(wanted.max_discard, reader.length("max-discard", std::max(wanted.opt_discard, unit)));
  return wanted;
}

}  // namespace graph
