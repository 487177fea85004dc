// seed.h - what a test that draws lots starts from: the same number in every ordinary run,
// GANTRY_SEED if it is given, and with GANTRY_SEED=random a new one each time. Print it on failure.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>
#include <string_view>

namespace test {

inline std::uint64_t seed() {
  constexpr std::uint64_t ordinary = 1000;
  const char* given = std::getenv("GANTRY_SEED");
  if (given == nullptr) return ordinary;
  if (std::string_view(given) == "random") return std::uint64_t{std::random_device{}()};
  return std::strtoull(given, nullptr, 0);
}
inline std::string repeat_with(std::uint64_t seed) {
  return "to repeat: GANTRY_SEED=" + std::to_string(seed);
}

}  // namespace test
