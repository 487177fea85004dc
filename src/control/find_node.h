// find_node.h - where a node is that a command names.
#pragma once

#include <string>

#include "src/site.h"

namespace app::control {

// The cell with a node of this name, null when there is none. Lifetime: the parameters outlive it.
Task<Cell*> cell_with(Site& site, const std::string& node);

// QEMU's words where a device is asked for.
Error no_device(const std::string& device);

}  // namespace app::control
