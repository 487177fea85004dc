#include "src/peer.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
// needs sys/socket.h before it
#include <linux/vm_sockets.h>

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace app {
namespace {

template <class T>
T name_as(const sockaddr_storage& storage) {
  T name{};
  std::memcpy(&name, &storage, sizeof name);
  return name;
}

asio::ip::address ip_of(const sockaddr_storage& storage) {
  if (storage.ss_family == AF_INET) {
    return asio::ip::address_v4(ntohl(name_as<sockaddr_in>(storage).sin_addr.s_addr));
  }
  const auto name = name_as<sockaddr_in6>(storage);
  asio::ip::address_v6::bytes_type bytes;
  std::memcpy(bytes.data(), &name.sin6_addr, bytes.size());
  const asio::ip::address_v6 address(bytes, name.sin6_scope_id);
  if (address.is_v4_mapped()) return make_address_v4(asio::ip::v4_mapped, address);
  return address;
}

std::uint16_t port_of(const sockaddr_storage& storage) {
  return ntohs(storage.ss_family == AF_INET ? name_as<sockaddr_in>(storage).sin_port
                                            : name_as<sockaddr_in6>(storage).sin6_port);
}

std::string network_of(const asio::ip::address& address) {
  if (address.is_v4() || address.is_loopback()) return address.to_string();
  auto bytes = address.to_v6().to_bytes();
  std::fill(bytes.begin() + 8, bytes.end(), static_cast<unsigned char>(0));
  return asio::ip::address_v6(bytes).to_string() + "/64";
}

void add_credentials(Peer& peer, int descriptor) {
  ucred user{};
  socklen_t length = sizeof user;
  peer.text = peer.origin = "unix";
  peer.is_local = true;
  if (::getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &user, &length) != 0) return;
  peer.text = "unix pid " + std::to_string(user.pid) + " uid " + std::to_string(user.uid) +
              " gid " + std::to_string(user.gid);
  peer.origin = "unix uid " + std::to_string(user.uid);
}

}  // namespace

Peer peer_of(int descriptor) {
  sockaddr_storage name{};
  socklen_t length = sizeof name;
  Peer peer;
  peer.text = "of an unknown kind";
  if (::getpeername(descriptor, reinterpret_cast<sockaddr*>(&name), &length) != 0) return peer;
  if (name.ss_family == AF_INET || name.ss_family == AF_INET6) {
    peer.family = Peer::Family::ip;
    peer.address = ip_of(name);
    const std::string number = peer.address.to_string();
    peer.text =
        (peer.address.is_v6() ? "[" + number + "]" : number) + ":" + std::to_string(port_of(name));
    peer.origin = network_of(peer.address);
    peer.is_local = peer.address.is_loopback();
  } else if (name.ss_family == AF_UNIX) {
    peer.family = Peer::Family::local;
    add_credentials(peer, descriptor);
  } else if (name.ss_family == AF_VSOCK) {
    const auto machine = name_as<sockaddr_vm>(name);
    peer.family = Peer::Family::vsock;
    peer.cid = machine.svm_cid;
    peer.text = "vsock:" + std::to_string(machine.svm_cid) + ":" + std::to_string(machine.svm_port);
    peer.origin = "vsock:" + std::to_string(machine.svm_cid);
    peer.is_local = machine.svm_cid == VMADDR_CID_LOCAL;
  }
  return peer;
}

Address local_address_of(int descriptor) {
  sockaddr_storage name{};
  socklen_t length = sizeof name;
  Address address;
  address.family = Address::Family::inherited;
  if (::getsockname(descriptor, reinterpret_cast<sockaddr*>(&name), &length) != 0) return address;
  if (name.ss_family == AF_INET || name.ss_family == AF_INET6) {
    address.family = Address::Family::tcp;
    address.host = ip_of(name).to_string();
    address.port = port_of(name);
  } else if (name.ss_family == AF_UNIX) {
    const auto local = name_as<sockaddr_un>(name);
    const std::size_t size = length - offsetof(sockaddr_un, sun_path);
    address.family = Address::Family::local;
    address.path.assign(local.sun_path, size);
    // a path ends at its NUL; a name without a file begins with one
    if (!address.path.starts_with('\0')) address.path.resize(::strnlen(local.sun_path, size));
  } else if (name.ss_family == AF_VSOCK) {
    const auto machine = name_as<sockaddr_vm>(name);
    address.family = Address::Family::vsock;
    address.cid = machine.svm_cid;
    address.port = machine.svm_port;
  }
  return address;
}

}  // namespace app
