#include "src/address.h"

#include <sys/un.h>

#include <charconv>
#include <filesystem>

namespace app {
namespace {

// One byte of it is for the NUL at the end.
constexpr std::size_t socket_path_max = sizeof(sockaddr_un::sun_path) - 1;

std::unexpected<Error> refuse(std::string_view text, std::string_view why) {
  return failure(Errc::invalid_argument,
                 "'" + std::string(text) + "' is no address: " + std::string(why));
}

Result<Address> parse_tcp(std::string_view text, std::string_view where) {
  const std::size_t colon = where.rfind(':');
  const bool bracketed = where.starts_with('[');
  if (colon == std::string_view::npos || (bracketed && (colon == 0 || where[colon - 1] != ']'))) {
    return refuse(text, "expected tcp:HOST:PORT");
  }
  std::string_view host = where.substr(0, colon);
  const std::string_view port = where.substr(colon + 1);
  if (bracketed) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return refuse(text, "an IPv6 address stands in brackets, as in tcp:[::1]:10809");
  }
  if (host.empty()) {
    return refuse(text, "the host is missing; 0.0.0.0 or [::] listens on every interface");
  }
  Address address;
  address.host = host;
  const auto [end, problem] = std::from_chars(port.data(), port.data() + port.size(), address.port);
  if (problem != std::errc{} || end != port.data() + port.size()) {
    return refuse(text, "a port is a number from 0 to 65535");
  }
  return address;
}

std::string bracketed(const std::string& host) {
  return host.find(':') == std::string::npos ? host : "[" + host + "]";
}

// Who listens on every interface is reached on this machine by its loopback address.
std::string reachable(const std::string& host) {
  if (host == "0.0.0.0") return "127.0.0.1";
  return host == "::" ? "::1" : host;
}

}  // namespace

std::string Address::text() const {
  if (family == Family::local) return "unix:" + path;
  return "tcp:" + bracketed(host) + ":" + std::to_string(port);
}

Result<Address> parse_address(std::string_view text, const std::string& folder) {
  if (text.find('\0') != std::string_view::npos) return refuse("...", "it contains a NUL");
  if (text.starts_with("tcp:")) return parse_tcp(text, text.substr(4));
  if (!text.starts_with("unix:")) return refuse(text, "expected unix:PATH or tcp:HOST:PORT");
  Address address;
  address.family = Address::Family::local;
  address.path = text.substr(5);
  if (address.path.empty()) return refuse(text, "the path is missing");
  if (address.path.front() != '/' && !folder.empty()) address.path.insert(0, folder + "/");
  if (address.path.size() > socket_path_max) {
    return refuse(text, "the path of a Unix socket has at most " + std::to_string(socket_path_max) +
                            " bytes, this one has " + std::to_string(address.path.size()));
  }
  return address;
}

std::string percent_encode(std::string_view text, std::string_view kept) {
  constexpr std::string_view digits = "0123456789ABCDEF";
  std::string result;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("-._~").find(c) != std::string_view::npos;
    if (plain || kept.find(c) != std::string_view::npos) {
      result += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      result += '%';
      result += digits[byte >> 4];
      result += digits[byte & 15];
    }
  }
  return result;
}

std::string shell_word(std::string_view text) {
  constexpr std::string_view plain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/:=+@%,";
  if (!text.empty() && text.find_first_not_of(plain) == std::string_view::npos) {
    return std::string(text);
  }
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

std::string nbd_uri(const Address& address, std::string_view export_name) {
  const std::string name = percent_encode(export_name, "/");
  if (address.family == Address::Family::local) {
    const std::string path = std::filesystem::absolute(address.path).lexically_normal().string();
    return "nbd+unix:///" + name + "?socket=" + percent_encode(path, "/");
  }
  return "nbd://" + bracketed(reachable(address.host)) + ":" + std::to_string(address.port) + "/" +
         name;
}

std::vector<std::string> attach_commands(const Address& address, std::string_view export_name) {
  const std::string uri = shell_word(nbd_uri(address, export_name));
  std::string kernel = "nbd-client ";
  if (address.family == Address::Family::local) {
    const std::string path = std::filesystem::absolute(address.path).lexically_normal().string();
    kernel += "-unix " + shell_word(path) + " /dev/nbd0";
  } else {
    kernel +=
        shell_word(reachable(address.host)) + " " + std::to_string(address.port) + " /dev/nbd0";
  }
  if (!export_name.empty()) kernel += " -N " + shell_word(export_name);
  return {"nbdinfo " + uri, kernel, "qemu-img info " + uri};
}

}  // namespace app
