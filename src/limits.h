// limits.h - how much one client, and all of them, may take: the numbers of [server], and what they
// mean for the lobby and for the servers.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "graph/base/options.h"
#include "nbd/lobby.h"
#include "nbd/server.h"

namespace app {

struct ServiceLimits {
  std::uint32_t connections_max = 100;
  std::optional<std::uint32_t> connections_per_peer;  // none: see nbd::LobbyOptions::origin_max
  std::uint32_t handshakes_max = 32;
  std::uint32_t options_max = 256;
  std::uint64_t option_bytes_max = 1 * MiB;  // of one option
  std::uint32_t requests_in_flight = 256;    // of one connection
  std::uint64_t bytes_in_flight = 64 * MiB;  // of one connection
  std::uint64_t buffer_memory = 256 * MiB;   // bytes, for all requests in flight
  std::chrono::nanoseconds handshake_timeout = std::chrono::seconds(10);
  std::chrono::nanoseconds drain_timeout = std::chrono::seconds(10);
  std::chrono::nanoseconds peer_timeout = std::chrono::minutes(2);

  // Of buffer_memory: each connection's own, and what is lent to whoever asks first; bytes.
  std::uint64_t own_memory() const;
  std::uint64_t lent_memory() const { return buffer_memory - own_memory() * connections_max; }

  nbd::LobbyOptions lobby() const;
  nbd::ServerOptions server() const;
};

// Errors: invalid_argument with the position.
Result<ServiceLimits> read_limits(const OptionReader& server);

}  // namespace app
