// resize_image.h - the command `resize`: a disk becomes larger or smaller while nobody uses it.
#pragma once

#include "src/command_line.h"
#include "src/worker.h"

namespace app {

// Refuses what qemu-img resize refuses. What is new reads as zeroes.
Task<int> resize_image(Worker& worker, const ResizeCommand& command, Drivers drivers);

}  // namespace app
