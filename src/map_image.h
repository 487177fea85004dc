// map_image.h - the command `map`: which layer answers for each byte of an image, and from where.
#pragma once

#include "src/command_line.h"
#include "src/worker.h"

namespace app {

// Prints extents as qemu-img map does. Nobody may write to the image meanwhile.
Task<int> map_image(Worker& worker, const MapCommand& command, Drivers drivers);

}  // namespace app
