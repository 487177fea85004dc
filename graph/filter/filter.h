// filter.h - the drivers of this folder, which show another node's content and do something beside.
// A driver has no header of its own: this is its table.
#pragma once

#include "graph/driver.h"

namespace graph {

extern const Driver blkdebug_driver;
extern const Driver blklogwrites_driver;

}  // namespace graph
