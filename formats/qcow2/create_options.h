// create_options.h - what a new image is to be like: the options of `qemu-img create -f qcow2`, by
// the same names, and what they say of each other.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "formats/qcow2/header.h"
#include "graph/base/options.h"

namespace formats::qcow2 {

enum class Preallocation : std::uint8_t {
  off,
  metadata,  // every cluster has its place
  falloc,    // and the file system has reserved it
  full,      // and it was written, with zeroes
};

struct CreateOptions {
  std::uint64_t size = 0;  // bytes
  std::uint32_t version = 3;
  Geometry geometry;
  bool lazy_refcounts = false;
  Compression compression = Compression::zlib;
  Preallocation preallocation = Preallocation::off;
  std::string backing_file;  // "": none
  std::optional<std::string> backing_format;
  std::string data_file;  // "": none
  bool data_file_raw = false;
};

// The keys, for help and for tables of a configuration.
std::span<const OptionSpec> create_option_specs();

// From key and value; keys given twice: the last one counts. Checked as check() does.
// Errors: invalid_argument, in qemu-img's words where it has some.
Result<CreateOptions> parse_create_options(
    std::span<const std::pair<std::string, std::string>> words);

// Errors: invalid_argument when they contradict each other, or the size is too large.
Result<> check(const CreateOptions& options);

}  // namespace formats::qcow2
