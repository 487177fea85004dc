// image_info.h - the command `info`: what an image is, from its metadata alone. Names in it are
// file names and nothing else, and what they name is opened only for --backing-chain.
#pragma once

#include "src/command_line.h"
#include "src/worker.h"

namespace app {

Task<int> print_info(Worker& worker, const InfoCommand& command, Drivers drivers);

}  // namespace app
