// snapshot_change.h - changes of a node's snapshots while it is in use: nobody reads or writes it
// meanwhile, and what was written before is in.
#pragma once

#include <string>

#include "graph/graph.h"

namespace graph {

// Of all: Errors: read_only; not_supported where the node's driver has no snapshots; the driver's.
// Lifetime: `node` stays in the graph until the task has ended.

// The active content as it is now, as a snapshot called `name`.
// Errors: invalid_argument when there is one of that name, or the name is empty.
Task<Port> take_snapshot(Node& node, std::string name);
// By id, or else by name. Errors: invalid_argument (there is none), busy (in use; says by whom).
Task<Port> delete_snapshot(Node& node, std::string wanted);
// The active content becomes what the snapshot is. Errors: busy while anybody uses the node, and
// see above.
Task<> apply_snapshot(Node& node, std::string wanted);

}  // namespace graph
