// uring_engine.h - files by io_uring, and by threads where a ring is no use.
#pragma once

#include <asio/awaitable.hpp>
#include <asio/io_context.hpp>
#include <memory>

#include "graph/base/engine.h"
#include "graph/base/error.h"

// Every call and completion happens on the one thread that runs `worker`; the engine may be made on
// another. Lifetime: `worker` outlives the engine. A call in flight keeps `worker` from running out
// of work; to stop it and destroy what waits there while the kernel still writes into the buffers
// is a bug, which the destructor checks. Errors: not_supported where io_uring is forbidden or too
// old: use another engine then.
Result<std::unique_ptr<Engine>> make_uring_engine(asio::io_context& worker);
