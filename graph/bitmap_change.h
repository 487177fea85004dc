// bitmap_change.h - changes of a node's dirty bitmaps while it is in use, with QEMU's rules and
// words. A bitmap that begins to record does so while the node is drained: a write that was on its
// way before would be missing in it.
#pragma once

#include <string>

#include "graph/graph.h"

namespace graph {

// Of all: Lifetime: the parameters outlive the task, and `node` stays in the graph.

// Errors: invalid_argument (name, granularity, name taken), not_supported (the node's driver stores
// no bitmaps).
Task<DirtyBitmap*> add_bitmap(Node& node, std::string name, std::uint64_t granularity,
                              BitmapTraits traits);
// From the image, too.
// Errors: busy, permission_denied (read-only), invalid_argument (no such bitmap), the driver's.
Task<> remove_bitmap(Node& node, std::string_view name);
// Errors: invalid_argument (no such bitmap, inconsistent), busy.
Task<> enable_bitmap(Node& node, std::string_view name);
Result<> disable_bitmap(Node& node, std::string_view name);
// All of it becomes clean.
// Errors: the same, and permission_denied (read-only).
Result<> clear_bitmap(Node& node, std::string_view name);

// What a bitmap is wanted for.
enum class BitmapUse : std::uint8_t {
  read,    // as it is now
  change,  // its content or what it records
  remove,  // whatever state it is in
};
// The bitmap, if it can be used for that.
// Errors: invalid_argument, busy, permission_denied.
Result<DirtyBitmap*> bitmap_for(const Node& node, std::string_view name, BitmapUse use);

}  // namespace graph
