// block_device.h - what the system says of a block device, and does to one, beyond what it does to
// any file. Plain calls, which may block.
#pragma once

#include "graph/base/engine.h"

// Completes the status of the block device that is open as `file`: its size, blocks and abilities.
SysResult<> examine_device(int file, FileStatus& status);
SysResult<> call_device(int file, DeviceCall call, Range range);
