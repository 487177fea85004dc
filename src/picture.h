// picture.h - the graph and its exports for people: as text, and as Graphviz dot.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "src/cell.h"

namespace app {

// Requires: the cells live on this thread.

// Several lines: the nodes, parents first, what each holds below, and the exports.
std::string to_text(std::span<const std::unique_ptr<Cell>> cells);
// A digraph; an edge's label is its name, its role, and what it takes and shares.
std::string to_dot(std::span<const std::unique_ptr<Cell>> cells);

}  // namespace app
