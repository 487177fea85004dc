// picture.h - the graph and its exports for people: as text, and as Graphviz dot.
#pragma once

#include <span>
#include <string>

#include "graph/graph.h"
#include "nbd/export.h"

namespace app {

// Several lines: the nodes, parents first, what each holds below, and the exports.
std::string to_text(const graph::Graph& graph, std::span<nbd::Export* const> exports);
// A digraph; an edge's label is its name, its role, and what it takes and shares.
std::string to_dot(const graph::Graph& graph, std::span<nbd::Export* const> exports);

}  // namespace app
