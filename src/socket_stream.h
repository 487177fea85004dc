// socket_stream.h - a connected TCP or Unix socket as a Stream.
#pragma once

#include <asio/any_io_executor.hpp>
#include <chrono>
#include <memory>

#include "graph/base/stream.h"

namespace app {

// Takes over `descriptor`, a connected socket that does not block; it is closed in any case. A TCP
// peer that answers nothing for `peer_timeout` is lost; 0: the system decides.
// Errors: what the event loop says when it can't watch it.
Result<std::unique_ptr<Stream>> socket_stream(const asio::any_io_executor& executor, int descriptor,
                                              std::chrono::seconds peer_timeout = {});

}  // namespace app
