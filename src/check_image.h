// check_image.h - the command `check`.
#pragma once

#include "src/command_line.h"
#include "src/worker.h"

namespace app {

// Exit status: 0 clean, 1 it could not be checked, 2 corrupt, 3 leaks.
Task<int> check_image(Worker& worker, const CheckCommand& command, Drivers drivers);

}  // namespace app
