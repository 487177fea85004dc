// check.h - does an image contradict itself? Counts what refers to each cluster, compares that with
// the counts that the image keeps, and repairs. Counts are those of `qemu-img check`.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "formats/qcow2/medium.h"

namespace formats::qcow2 {

enum class Repair : std::uint8_t {
  none,
  leaks,  // only what no guest data depends on
  all,
};

struct CheckReport {
  std::uint64_t corruptions = 0;
  std::uint64_t leaks = 0;         // clusters
  std::uint64_t check_errors = 0;  // what could not be looked at
  std::uint64_t corruptions_fixed = 0;
  std::uint64_t leaks_fixed = 0;
  std::uint64_t image_end = 0;  // bytes: where the last cluster in use ends
  std::uint64_t total_clusters = 0;
  std::uint64_t allocated_clusters = 0;
  std::uint64_t fragmented_clusters = 0;  // not where the one before them would lead to
  std::uint64_t compressed_clusters = 0;

  bool is_clean() const { return corruptions == 0 && leaks == 0 && check_errors == 0; }
};

struct CheckOptions {
  Repair repair = Repair::none;
  // One line for each thing that is wrong, or repaired.
  std::function<void(const std::string& line)> found;
  std::function<void(std::uint64_t done, std::uint64_t total)> progress;
};

// Checks the image in `file`, which nobody else uses meanwhile, and repairs it if that is wanted:
// then `file` is writable. A repair is made in steps, durable one by one, none of which makes
// anything worse than it was. What a repair leaves is in the report's first three numbers.
// Errors: it can't be checked (corrupt: no readable header or snapshot table, or leaks can't be
// repaired without `all`); the file's.
Task<CheckReport> check(Medium& file, const CheckOptions& options);

}  // namespace formats::qcow2
