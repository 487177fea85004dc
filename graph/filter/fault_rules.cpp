#include "graph/filter/fault_rules.h"

#include <algorithm>

namespace graph {
namespace {

template <class Rule>
bool matches(const Rule& rule, DebugEvent event, int state) {
  return rule.event == event && (rule.state == any_state || rule.state == state);
}

// Requests without a range, such as flushes, touch no sector.
bool touches(Range range, std::uint64_t sector) {
  const std::uint64_t at = sector * fault_sector_size;
  return range.offset <= at && at < range.end();
}

}  // namespace

void FaultRules::meet(DebugEvent event) {
  decltype(armed_) met;
  for (auto rule = injects_.begin(); rule != injects_.end(); ++rule) {
    if (matches(*rule, event, state_)) met.push_back(rule);
  }
  if (!met.empty()) armed_ = std::move(met);
  const auto change = std::ranges::find_if(
      states_, [&](const StateRule& rule) { return matches(rule, event, state_); });
  if (change != states_.end()) state_ = change->new_state;
}

std::optional<Fault> FaultRules::strike(IoType type, Range range) {
  const auto found = std::ranges::find_if(armed_, [&](const auto& rule) {
    return rule->types.has(type) && (!rule->sector || touches(range, *rule->sector));
  });
  if (found == armed_.end()) return std::nullopt;
  const auto rule = *found;
  const Fault fault = rule->fault;
  if (fault.error_number == 0) return std::nullopt;
  if (rule->once) {
    armed_.erase(found);
    injects_.erase(rule);
  }
  return fault;
}

}  // namespace graph
