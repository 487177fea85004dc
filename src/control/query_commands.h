// query_commands.h - commands that look, and the one that ends the daemon. See commands.cpp.
#pragma once

#include "src/control/command.h"

namespace app::control {

// Of all: Lifetime: the parameters outlive it.
asio::awaitable<Answer<Json>> query_block_exports(Host& host, const Arguments& arguments);
asio::awaitable<Answer<Json>> query_commands(Host& host, const Arguments& arguments);
asio::awaitable<Answer<Json>> query_named_block_nodes(Host& host, const Arguments& arguments);
asio::awaitable<Answer<Json>> query_version(Host& host, const Arguments& arguments);
asio::awaitable<Answer<Json>> quit(Host& host, const Arguments& arguments);

}  // namespace app::control
