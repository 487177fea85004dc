#include "src/limits.h"

#include <algorithm>
#include <string>

namespace app {
namespace {

// Of what all connections may use, one part in so many is theirs in equal shares, but no share is
// smaller than a small request; the rest is lent, and that is at least one part in so many.
constexpr std::uint64_t owned_part = 4;
constexpr std::uint64_t own_memory_min = 4 * KiB;
constexpr std::uint64_t lent_part_min = 4;

constexpr std::int64_t count_max = 1'000'000;

struct Bounds {
  std::uint64_t least, most;
};
constexpr Bounds option_bytes{4 * KiB + 64, 64 * MiB};  // a name of 4096 bytes has to fit
constexpr Bounds in_flight_bytes{64 * KiB, 64 * GiB};

std::unexpected<Error> refuse(const OptionReader& server, std::string_view key, std::string why) {
  return std::unexpected(
      at_position(server.position(key),
                  Error(Errc::invalid_argument, "'" + std::string(key) + "': " + std::move(why))));
}

Result<std::uint32_t> read_count(const OptionReader& server, std::string_view key) {
  const std::int64_t value = server.integer(key);
  if (value < 1 || value > count_max) {
    return refuse(server, key,
                  std::to_string(value) + " is not in 1 to " + std::to_string(count_max));
  }
  return static_cast<std::uint32_t>(value);
}

Result<std::uint64_t> read_bytes(const OptionReader& server, std::string_view key, Bounds bounds) {
  const std::uint64_t value = server.bytes(key);
  if (value < bounds.least || value > bounds.most) {
    return refuse(server, key,
                  std::to_string(value) + " is not in " + format_bytes(bounds.least) + " to " +
                      format_bytes(bounds.most));
  }
  return value;
}

}  // namespace

std::uint64_t ServiceLimits::own_memory() const {
  const std::uint64_t most = (buffer_memory - buffer_memory / lent_part_min) / connections_max;
  const std::uint64_t fair = buffer_memory / owned_part / connections_max;
  return std::min(std::max(fair, own_memory_min), most);
}

nbd::LobbyOptions ServiceLimits::lobby() const {
  nbd::LobbyOptions options;
  options.handshake_timeout = handshake_timeout;
  options.clients_max = connections_max;
  if (connections_per_peer) options.origin_max = *connections_per_peer;
  options.guests_max = handshakes_max;
  options.options_max = options_max;
  options.option_length_max = option_bytes_max;
  return options;
}

nbd::ServerOptions ServiceLimits::server() const {
  nbd::ServerOptions options;
  options.drain_timeout = drain_timeout;
  options.in_flight.requests = requests_in_flight;
  options.in_flight.bytes = bytes_in_flight;
  options.in_flight.own_bytes = own_memory();
  return options;
}

Result<ServiceLimits> read_limits(const OptionReader& server) {
  ServiceLimits limits;
  TRY(limits.connections_max, read_count(server, "max-connections"));
  if (server.has("max-connections-per-peer")) {
    TRY(limits.connections_per_peer, read_count(server, "max-connections-per-peer"));
  }
  TRY(limits.handshakes_max, read_count(server, "max-handshakes"));
  TRY(limits.options_max, read_count(server, "max-options"));
  TRY(limits.option_bytes_max, read_bytes(server, "max-option-bytes", option_bytes));
  TRY(limits.requests_in_flight, read_count(server, "max-requests-in-flight"));
  TRY(limits.bytes_in_flight, read_bytes(server, "max-bytes-in-flight", in_flight_bytes));
  TRY(limits.buffer_memory, read_bytes(server, "buffer-memory", in_flight_bytes));
  if (limits.own_memory() < own_memory_min) {
    return refuse(server, "buffer-memory",
                  format_bytes(limits.buffer_memory) + " is too little for " +
                      std::to_string(limits.connections_max) + " connections, which take " +
                      format_bytes(own_memory_min) + " each, and a third of that to share");
  }
  const auto duration = [&](std::string_view key) {
    return std::chrono::nanoseconds(static_cast<std::int64_t>(server.duration_ns(key)));
  };
  limits.handshake_timeout = duration("handshake-timeout");
  limits.drain_timeout = duration("drain-timeout");
  limits.peer_timeout = duration("peer-timeout");
  if (limits.peer_timeout.count() != 0 && limits.peer_timeout < std::chrono::seconds(1)) {
    return refuse(server, "peer-timeout", "less than 1s; 0s leaves it to the system");
  }
  return limits;
}

}  // namespace app
