// allow_list.h - which peers may connect to a listener: networks and machines, compared as numbers.
#pragma once

#include <asio/ip/address.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "graph/base/error.h"
#include "src/peer.h"

namespace app {

// All addresses that begin with the same bits.
class Network {
 public:
  // "10.0.0.0/8", "2001:db8::/32", or one address.
  // Errors: invalid_argument, also for an address that has bits set beyond its prefix.
  static Result<Network> parse(std::string_view text);

  bool contains(const asio::ip::address& address) const;
  bool operator==(const Network&) const = default;

 private:
  Network(asio::ip::address base, unsigned prefix) : base_(std::move(base)), prefix_(prefix) {}

  asio::ip::address base_;
  unsigned prefix_;  // bits
};

struct AllowList {
  std::vector<Network> networks;
  std::vector<std::uint32_t> cids;  // of vsock

  // A peer of another kind than those listed is not on it.
  bool admits(const Peer& peer) const;
  bool operator==(const AllowList&) const = default;
};

}  // namespace app
