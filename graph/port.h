// port.h - a content of a node beside the active one, read-only: an internal snapshot.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace graph {

struct Port {
  std::string id;
  std::string name;
  std::uint64_t size = 0;                // bytes
  std::uint64_t machine_state_size = 0;  // of the guest's memory and devices, kept with it; bytes
  std::chrono::nanoseconds taken{};      // since the epoch
  std::chrono::nanoseconds machine_clock{};   // how long the guest had run
  std::optional<std::uint64_t> instructions;  // of the guest, where they are counted
};

// By id, or else by name. Null when there is none.
const Port* find_port(std::span<const Port> ports, std::string_view wanted);

}  // namespace graph
