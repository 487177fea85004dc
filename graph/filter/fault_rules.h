// fault_rules.h - which request fails, and with what: rules that wait for an event, and a state
// that other rules move. Knows no node and no I/O.
#pragma once

#include <cstdint>
#include <list>
#include <optional>
#include <vector>

#include "graph/base/bytes.h"
#include "graph/debug_event.h"

namespace graph {

// What a request does, as far as faults care.
enum class IoType : std::uint8_t { read, write, write_zeroes, discard, flush, block_status };

class IoTypes {
 public:
  constexpr IoTypes() = default;
  constexpr IoTypes(IoType one) : bits_(1U << static_cast<unsigned>(one)) {}
  constexpr bool has(IoType one) const { return (bits_ & IoTypes(one).bits_) != 0; }
  // All but block_status.
  static constexpr IoTypes usual() {
    IoTypes all;
    all.bits_ = IoTypes(IoType::block_status).bits_ - 1;
    return all;
  }

 private:
  unsigned bits_ = 0;
};

inline constexpr int any_state = 0;
inline constexpr int first_state = 1;
inline constexpr std::uint64_t fault_sector_size = 512;

enum class Promptness : std::uint8_t { later, at_once };

struct Fault {
  int error_number = 0;  // an errno of Linux; 0: no failure, and no other rule's either
  Promptness when = Promptness::later;
};

struct InjectRule {
  DebugEvent event = DebugEvent::none;
  int state = any_state;
  IoTypes types = IoTypes::usual();
  std::optional<std::uint64_t> sector;  // only requests that touch it
  bool once = false;
  Fault fault;
};

struct StateRule {
  DebugEvent event = DebugEvent::none;
  int state = any_state;
  int new_state = first_state;
};

class FaultRules {
 public:
  void add(InjectRule rule) { injects_.push_back(rule); }
  void add(StateRule rule) { states_.push_back(rule); }

  // A request has come to `event`. Every rule looks at the state as it was. Inject rules that match
  // are armed, in place of those that were; of state rules that match the first decides.
  void meet(DebugEvent event);
  bool armed() const { return !armed_.empty(); }
  // What becomes of a request. Of the armed rules that match the first one decides; it is gone
  // after that if it is for once.
  std::optional<Fault> strike(IoType type, Range range);
  int state() const { return state_; }

 private:
  std::list<InjectRule> injects_;  // in the order in which they were given
  std::vector<StateRule> states_;
  std::vector<std::list<InjectRule>::iterator> armed_;
  int state_ = first_state;
};

}  // namespace graph
