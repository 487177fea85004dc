// snapshot_commands.h - blockdev-snapshot-*internal-sync. See commands.cpp.
#pragma once

#include "src/control/command.h"

namespace app::control {

// Of all: Lifetime: the parameters outlive it.
asio::awaitable<Answer<Json>> take_snapshot(Host& host, const Arguments& arguments);
asio::awaitable<Answer<Json>> delete_snapshot(Host& host, const Arguments& arguments);

}  // namespace app::control
