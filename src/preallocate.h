// preallocate.h - space for bytes of a disk that nobody has written yet.
#pragma once

#include "formats/qcow2/create.h"
#include "formats/qcow2/create_options.h"
#include "formats/qcow2/medium.h"

namespace app {

// `full` writes zeroes to `range`, `falloc` has them reserved, `metadata` gives the range of a
// qcow2 disk its place in the file. Progress is in bytes of `range`. Requires: `how` is one of
// these. Errors: no_space, io_error. Lifetime: the parameters outlive the task.
Task<> preallocate(formats::qcow2::Medium& disk, Range range, formats::qcow2::Preallocation how,
                   const formats::qcow2::Progress& progress);

}  // namespace app
