// bind.h - sockets that listen: each of the ways to get one, and what to do when it fails.
#pragma once

#include <asio/ip/tcp.hpp>
#include <string>

#include "graph/base/clock.h"
#include "graph/base/task.h"
#include "src/descriptor.h"
#include "src/listen_config.h"

namespace app {

// Errors of all of them: the reason and what helps, without the address.

Result<Descriptor> bind_tcp(const asio::ip::tcp::endpoint& endpoint);
Result<Descriptor> bind_vsock(const Address& address);
// The socket's file is as `file` says before anybody can connect. A file that a server has left
// behind is replaced; one that somebody serves never is, even if several servers start at once.
// Lifetime: the parameters outlive the task.
Task<Descriptor> bind_local(Clock& clock, const std::string& path, const SocketFile& file);

}  // namespace app
