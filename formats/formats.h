// formats.h - the drivers of this folder. A driver has no header of its own: this is its table.
#pragma once

#include "graph/driver.h"

namespace formats {

extern const graph::Driver qcow2_driver;
extern const graph::Driver raw_driver;

}  // namespace formats
