#include "src/address.h"

#include <sys/un.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>
#include <optional>
#include <utility>

#include "graph/base/log.h"

namespace app {
namespace {

// One byte of it is for the NUL at the end.
constexpr std::size_t socket_path_max = sizeof(sockaddr_un::sun_path) - 1;

std::unexpected<Error> refuse(std::string_view text, std::string_view why) {
  return failure(Errc::invalid_argument,
                 "'" + printable(text) + "' is no address: " + std::string(why));
}

template <class T>
std::optional<T> whole_number(std::string_view text) {
  T number = 0;
  const char* end = text.data() + text.size();
  const auto [stopped, problem] = std::from_chars(text.data(), end, number);
  if (problem != std::errc{} || stopped != end) return std::nullopt;
  return number;
}

using CidWord = std::pair<std::string_view, std::uint32_t>;
constexpr std::array<CidWord, 3> cid_words{
    {{"any", cid_any}, {"local", cid_local}, {"host", cid_host}}};

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
  const auto number = whole_number<std::uint16_t>(port);
  if (!number) return refuse(text, "a port is a number from 0 to 65535");
  address.port = *number;
  return address;
}

// A port of vsock has 32 bits, and the last one stands for "any".
constexpr std::uint32_t vsock_port_max = 0xfffffffe;

Result<Address> parse_vsock(std::string_view text, std::string_view where) {
  const std::size_t colon = where.find(':');
  if (colon == std::string_view::npos) return refuse(text, "expected vsock:CID:PORT");
  const std::string_view cid = where.substr(0, colon);
  const auto word = std::ranges::find(cid_words, cid, &CidWord::first);
  const auto number = whole_number<std::uint32_t>(cid);
  if (word == cid_words.end() && (!number || *number == cid_any)) {
    return refuse(text, "a CID is any, local, host, or a number");
  }
  const auto port = whole_number<std::uint32_t>(where.substr(colon + 1));
  if (!port || *port > vsock_port_max) {
    return refuse(text, "a port of vsock is a number from 0 to 4294967294");
  }
  Address address;
  address.family = Address::Family::vsock;
  address.cid = word != cid_words.end() ? word->second : *number;
  address.port = *port;
  return address;
}

Result<Address> parse_inherited(std::string_view text, std::string_view name) {
  Address address;
  address.family = Address::Family::inherited;
  if (name.empty()) return address;
  address.name = name.substr(1);
  if (address.name.empty()) return refuse(text, "the name is missing; \"systemd\" takes them all");
  return address;
}

std::string cid_text(std::uint32_t cid) {
  const auto word = std::ranges::find(cid_words, cid, &CidWord::second);
  return word == cid_words.end() ? std::to_string(cid) : std::string(word->first);
}

// Guests reach the machine that they run on as the host, whatever else it listens on.
std::uint32_t reachable(std::uint32_t cid) { return cid == cid_any ? cid_host : cid; }

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
  switch (family) {
    case Family::local:
      return "unix:" + (path.starts_with('\0') ? "@" + path.substr(1) : path);
    case Family::vsock:
      return "vsock:" + cid_text(cid) + ":" + std::to_string(port);
    case Family::inherited:
      return name.empty() ? "systemd" : "systemd:" + name;
    case Family::tcp:
      break;
  }
  return "tcp:" + bracketed(host) + ":" + std::to_string(port);
}

Result<Address> parse_address(std::string_view text, const std::string& folder) {
  if (text.find('\0') != std::string_view::npos) return refuse("...", "it contains a NUL");
  if (text.starts_with("tcp:")) return parse_tcp(text, text.substr(4));
  if (text.starts_with("vsock:")) return parse_vsock(text, text.substr(6));
  if (text == "systemd" || text.starts_with("systemd:"))
    return parse_inherited(text, text.substr(7));
  if (!text.starts_with("unix:")) {
    return refuse(text, "expected unix:PATH, tcp:HOST:PORT, vsock:CID:PORT or systemd");
  }
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

namespace {

std::string full_path(const Address& address) {
  if (address.path.starts_with('\0')) return address.path;
  return std::filesystem::absolute(address.path).lexically_normal().string();
}

// As QEMU's option lists want it.
std::string doubled_commas(std::string_view text) {
  std::string result;
  for (const char c : text) result += c == ',' ? std::string(",,") : std::string(1, c);
  return result;
}

}  // namespace

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
  switch (address.family) {
    case Address::Family::local:
      return "nbd+unix:///" + name + "?socket=" + percent_encode(full_path(address), "/");
    case Address::Family::vsock:  // not of the specification, but of libnbd and nbdkit
      return "nbd+vsock://" + std::to_string(reachable(address.cid)) + ":" +
             std::to_string(address.port) + "/" + name;
    case Address::Family::inherited:
      return "";
    case Address::Family::tcp:
      break;
  }
  return "nbd://" + bracketed(reachable(address.host)) + ":" + std::to_string(address.port) + "/" +
         name;
}

std::vector<std::string> attach_commands(const Address& address, std::string_view export_name) {
  if (address.family == Address::Family::inherited) return {};
  const std::string uri = shell_word(nbd_uri(address, export_name));
  if (address.family == Address::Family::vsock) {
    const std::string options =
        "driver=nbd,server.type=vsock,server.cid=" + std::to_string(reachable(address.cid)) +
        ",server.port=" + std::to_string(address.port) + ",export=" + doubled_commas(export_name);
    return {"nbdinfo " + uri, "qemu-img info --image-opts " + shell_word(options)};
  }
  std::string kernel = "nbd-client ";
  if (address.family == Address::Family::local) {
    if (address.path.starts_with('\0')) return {"nbdinfo " + uri, "qemu-img info " + uri};
    kernel += "-unix " + shell_word(full_path(address)) + " /dev/nbd0";
  } else {
    kernel +=
        shell_word(reachable(address.host)) + " " + std::to_string(address.port) + " /dev/nbd0";
  }
  if (!export_name.empty()) kernel += " -N " + shell_word(export_name);
  return {"nbdinfo " + uri, kernel, "qemu-img info " + uri};
}

}  // namespace app
