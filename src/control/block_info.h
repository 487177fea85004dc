// block_info.h - a node as QMP describes it: QEMU's BlockDeviceInfo, ImageInfo, BlockDirtyInfo.
#pragma once

#include "graph/base/json.h"
#include "src/cell.h"

namespace app::control {

// Does the description of an image hold those below it?
enum class Backing : std::uint8_t { nested, left_out };

// All nodes of the cell; on its worker.
// Lifetime: the cell outlives the task.
Task<JsonArray> describe_nodes(Cell& cell, Backing backing);

}  // namespace app::control
