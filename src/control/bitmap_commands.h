// bitmap_commands.h - block-dirty-bitmap-*. See commands.cpp.
#pragma once

#include "src/control/command.h"

namespace app::control {

// Of all: Lifetime: the parameters outlive it.
asio::awaitable<Answer<Json>> add_bitmap(Host& host, const Arguments& arguments);
asio::awaitable<Answer<Json>> remove_bitmap(Host& host, const Arguments& arguments);
asio::awaitable<Answer<Json>> clear_bitmap(Host& host, const Arguments& arguments);
asio::awaitable<Answer<Json>> enable_bitmap(Host& host, const Arguments& arguments);
asio::awaitable<Answer<Json>> disable_bitmap(Host& host, const Arguments& arguments);
// Bitmaps of any nodes into one: all of them, or, when one can't be merged, none.
asio::awaitable<Answer<Json>> merge_bitmaps(Host& host, const Arguments& arguments);

}  // namespace app::control
