// seed.h - what a test that draws lots starts from: GANTRY_SEED, else a new number each time. Print
// it on failure.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>

namespace test {

inline std::uint64_t seed() {
  if (const char* given = std::getenv("GANTRY_SEED")) return std::strtoull(given, nullptr, 0);
  std::random_device chance;
  return std::uint64_t{chance()};
}
inline std::string repeat_with(std::uint64_t seed) {
  return "to repeat: GANTRY_SEED=" + std::to_string(seed);
}

}  // namespace test
