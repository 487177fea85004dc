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

std::string origin_of(const asio::ip::address& host) {
  if (host.is_v4() || host.is_loopback()) return host.to_string();
  constexpr std::size_t half = 8;
  asio::ip::address_v6::bytes_type bytes = host.to_v6().to_bytes();
  std::fill(bytes.begin() + half, bytes.end(), static_cast<unsigned char>(0));
  return asio::ip::address_v6(bytes).to_string() + "/64";
}

Peer ip_peer(const sockaddr_storage& name) {
  Peer peer;
  peer.family = Peer::Family::ip;
  peer.address = ip_of(name);
  const std::string number = peer.address.to_string();
  peer.text =
      (peer.address.is_v6() ? "[" + number + "]" : number) + ":" + std::to_string(port_of(name));
  peer.origin = origin_of(peer.address);
  peer.on_this_machine = peer.address.is_loopback();
  return peer;
}

Peer local_peer(int descriptor) {
  Peer peer;
  peer.family = Peer::Family::local;
  peer.text = peer.origin = "unix";
  peer.on_this_machine = true;
  ucred process{};
  socklen_t length = sizeof process;
  if (::getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &process, &length) == 0) {
    const std::string user = " uid " + std::to_string(process.uid);
    peer.text +=
        " pid " + std::to_string(process.pid) + user + " gid " + std::to_string(process.gid);
    peer.origin += user;
  }
  return peer;
}

Peer vsock_peer(const sockaddr_storage& name) {
  const auto machine = name_as<sockaddr_vm>(name);
  Peer peer;
  peer.family = Peer::Family::vsock;
  peer.cid = machine.svm_cid;
  peer.origin = "vsock:" + std::to_string(machine.svm_cid);
  peer.text = peer.origin + ":" + std::to_string(machine.svm_port);
  peer.on_this_machine = machine.svm_cid == VMADDR_CID_LOCAL;
  return peer;
}

}  // namespace

Peer peer_of(int descriptor) {
  sockaddr_storage name{};
  socklen_t length = sizeof name;
  const int failed = ::getpeername(descriptor, reinterpret_cast<sockaddr*>(&name), &length);
  if (failed == 0 && (name.ss_family == AF_INET || name.ss_family == AF_INET6)) {
    return ip_peer(name);
  }
  if (failed == 0 && name.ss_family == AF_UNIX) return local_peer(descriptor);
  if (failed == 0 && name.ss_family == AF_VSOCK) return vsock_peer(name);
  Peer peer;
  peer.text = peer.origin = "of an unknown kind";
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
