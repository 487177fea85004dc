// create.h - makes a new image.
#pragma once

#include <cstdint>
#include <functional>

#include "formats/qcow2/create_options.h"
#include "formats/qcow2/medium.h"

namespace formats::qcow2 {

// Called now and then: what is done, of how much.
using Progress = std::function<void(std::uint64_t done, std::uint64_t total)>;

// Makes `file` an image, and `data` its data file where it has one; without, null. What they held
// is lost. The header is written last, after a flush: a half-made file is no image. Durable when it
// returns. Requires: check(options) was right. Errors: no_space, also when a file that can't grow
// is too short; what the files say.
Task<> create(Medium& file, Medium* data, CreateOptions options, const Progress& progress);

}  // namespace formats::qcow2
