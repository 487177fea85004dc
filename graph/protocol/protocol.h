// protocol.h - the drivers of this folder. A driver has no header of its own: this is its table.
#pragma once

#include "graph/driver.h"

namespace graph {

extern const Driver file_driver;
extern const Driver host_device_driver;
extern const Driver memory_driver;
extern const Driver null_co_driver;

}  // namespace graph
