// peer.h - who is at the other end of a socket, as far as the system vouches for it.
#pragma once

#include <asio/ip/address.hpp>
#include <cstdint>
#include <string>

#include "src/address.h"

namespace app {

struct Peer {
  // other: of a family that we don't know, or it has left already
  enum class Family : std::uint8_t { ip, local, vsock, other };
  Family family = Family::other;
  asio::ip::address address;  // ip: an IPv4 address mapped into IPv6 stands here as IPv4
  std::uint32_t cid = 0;      // vsock
  // For the log: "127.0.0.1:50000", "[::1]:50000", "unix pid 7 uid 0 gid 0", "vsock:3:50000"
  std::string text;
  // Whom to count together: a host or a user. An IPv6 host has a whole /64 to choose from.
  std::string origin;
  bool is_local = false;  // on this machine
};

// Of `descriptor`, a connected socket.
Peer peer_of(int descriptor);
// Where `descriptor`, a socket of any family, is bound; its family is `inherited` when we don't
// know it.
Address local_address_of(int descriptor);

}  // namespace app
