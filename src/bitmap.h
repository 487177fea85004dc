// bitmap.h - the command `bitmap`: the dirty bitmaps that an image keeps.
#pragma once

#include "src/command_line.h"
#include "src/worker.h"

namespace app {

// Lists them, or changes one while nobody else has the image open.
Task<int> change_bitmap(Worker& worker, const BitmapCommand& command, Drivers drivers);

}  // namespace app
