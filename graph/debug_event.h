// debug_event.h - the places of a request's way that a test can name, to fail or stop there: QEMU's
// blkdebug events, by its names. A node that wants them (blkdebug) hears those of its own requests
// from request_path.cpp, and those of its parent's driver through the edge between them.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace graph {

enum class DebugEvent : std::uint8_t {
  none,  // once, when the node is opened
  // a format's metadata
  l1_update,
  l1_grow_alloc_table,
  l1_grow_write_table,
  l1_grow_activate_table,
  l2_load,
  l2_update,
  l2_update_compressed,
  l2_alloc_cow_read,
  l2_alloc_write,
  // the data of a format, raw included, is about to be read from or written to its child
  read_aio,
  read_backing_aio,
  read_compressed,
  write_aio,
  write_compressed,
  vmstate_load,
  vmstate_save,
  cow_read,
  cow_write,
  reftable_load,
  reftable_grow,
  reftable_update,
  refblock_load,
  refblock_update,
  refblock_update_part,
  refblock_alloc,
  refblock_alloc_hookup,
  refblock_alloc_write,
  refblock_alloc_write_blocks,
  refblock_alloc_write_table,
  refblock_alloc_switch_table,
  cluster_alloc,
  cluster_alloc_bytes,
  cluster_free,
  // the parent is being flushed: its caches, then its medium
  flush_to_os,
  flush_to_disk,
  // a request to the node itself: before and after each read of padding, before and after writing
  pwritev_rmw_head,
  pwritev_rmw_after_head,
  pwritev_rmw_tail,
  pwritev_rmw_after_tail,
  pwritev,
  pwritev_zero,
  pwritev_done,
  empty_image_prepare,
  l1_shrink_write_table,
  l1_shrink_free_l2_clusters,
  cor_write,
  cluster_alloc_space,
};

inline constexpr std::array<std::string_view, 48> debug_event_names{
    "none",
    "l1_update",
    "l1_grow_alloc_table",
    "l1_grow_write_table",
    "l1_grow_activate_table",
    "l2_load",
    "l2_update",
    "l2_update_compressed",
    "l2_alloc_cow_read",
    "l2_alloc_write",
    "read_aio",
    "read_backing_aio",
    "read_compressed",
    "write_aio",
    "write_compressed",
    "vmstate_load",
    "vmstate_save",
    "cow_read",
    "cow_write",
    "reftable_load",
    "reftable_grow",
    "reftable_update",
    "refblock_load",
    "refblock_update",
    "refblock_update_part",
    "refblock_alloc",
    "refblock_alloc_hookup",
    "refblock_alloc_write",
    "refblock_alloc_write_blocks",
    "refblock_alloc_write_table",
    "refblock_alloc_switch_table",
    "cluster_alloc",
    "cluster_alloc_bytes",
    "cluster_free",
    "flush_to_os",
    "flush_to_disk",
    "pwritev_rmw_head",
    "pwritev_rmw_after_head",
    "pwritev_rmw_tail",
    "pwritev_rmw_after_tail",
    "pwritev",
    "pwritev_zero",
    "pwritev_done",
    "empty_image_prepare",
    "l1_shrink_write_table",
    "l1_shrink_free_l2_clusters",
    "cor_write",
    "cluster_alloc_space",
};
static_assert(static_cast<std::size_t>(DebugEvent::cluster_alloc_space) + 1 ==
              debug_event_names.size());
static_assert(debug_event_names[static_cast<std::size_t>(DebugEvent::pwritev_done)] ==
              "pwritev_done");

constexpr std::string_view to_string(DebugEvent event) {
  return debug_event_names[static_cast<std::size_t>(event)];
}

}  // namespace graph
