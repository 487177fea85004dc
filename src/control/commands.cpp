// commands.cpp - the table of commands: what the control socket can do.
#include <array>

#include "src/control/bitmap_commands.h"
#include "src/control/command.h"
#include "src/control/query_commands.h"
#include "src/control/snapshot_commands.h"

namespace app::control {
namespace {

using enum ArgumentKind;
using enum Presence;

constexpr std::array<Argument, 0> none{};
constexpr std::array flat{Argument{"flat", boolean, optional}};
constexpr std::array bitmap{Argument{"node", string}, Argument{"name", string}};
constexpr std::array new_bitmap{
    Argument{"node", string}, Argument{"name", string}, Argument{"granularity", uint32, optional},
    Argument{"persistent", boolean, optional}, Argument{"disabled", boolean, optional}};
constexpr std::array bitmap_merge{Argument{"node", string}, Argument{"target", string},
                                  Argument{"bitmaps", array}};
constexpr std::array new_snapshot{Argument{"device", string}, Argument{"name", string}};
constexpr std::array snapshot{Argument{"device", string}, Argument{"id", string, optional},
                              Argument{"name", string, optional}};

constexpr std::array table{
    Command{"block-dirty-bitmap-add", new_bitmap, add_bitmap},
    Command{"block-dirty-bitmap-clear", bitmap, clear_bitmap},
    Command{"block-dirty-bitmap-disable", bitmap, disable_bitmap},
    Command{"block-dirty-bitmap-enable", bitmap, enable_bitmap},
    Command{"block-dirty-bitmap-merge", bitmap_merge, merge_bitmaps},
    Command{"block-dirty-bitmap-remove", bitmap, remove_bitmap},
    Command{"blockdev-snapshot-delete-internal-sync", snapshot, delete_snapshot},
    Command{"blockdev-snapshot-internal-sync", new_snapshot, take_snapshot},
    Command{"query-block-exports", none, query_block_exports, Order::beside},
    Command{"query-commands", none, query_commands, Order::beside},
    Command{"query-named-block-nodes", flat, query_named_block_nodes},
    Command{"query-version", none, query_version, Order::beside},
    Command{"quit", none, quit, Order::beside, After::quit},
};

}  // namespace

std::span<const Command> commands() { return table; }

}  // namespace app::control
