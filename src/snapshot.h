// snapshot.h - the command `snapshot`: the internal snapshots of an image.
#pragma once

#include "src/command_line.h"
#include "src/worker.h"

namespace app {

// Lists them, or changes them while nobody else has the image open.
Task<int> change_snapshot(Worker& worker, const SnapshotCommand& command, Drivers drivers);

}  // namespace app
