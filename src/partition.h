// partition.h - which nodes and exports of a configuration belong together: each part is one graph,
// and lives on one worker.
#pragma once

#include <cstddef>
#include <vector>

#include "src/config.h"

namespace app {

// Lifetime: the configuration outlives it.
struct Part {
  std::vector<const NodeConfig*> nodes;      // children first
  std::vector<const ExportConfig*> exports;  // none for nodes that nobody serves
};

// Nodes that are connected, by references or by an export, are one part. A node that is read-only
// for everybody, and all that is beneath it, connects nothing: it is opened again in each part that
// needs it, and those that share such a node make at most `copies_max` parts. Requires:
// read_config() was content.
std::vector<Part> partition(const Config& config, Drivers drivers, std::size_t copies_max);

}  // namespace app
