// address.h - where the server listens, as people write it, and how clients reach an export there.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "graph/base/error.h"

namespace app {

struct Address {
  // inherited: sockets that systemd has opened
  enum class Family : std::uint8_t { tcp, local, vsock, inherited };
  Family family = Family::tcp;
  std::string host;        // tcp: a name or a number, IPv6 without brackets
  std::uint32_t port = 0;  // tcp, vsock: 0 picks a free one
  std::string path;        // local: of the socket; one that starts with NUL has no file
  std::uint32_t cid = 0;   // vsock: of a machine
  std::string name;        // inherited: FileDescriptorName= of the socket unit; "": whatever it is

  bool operator==(const Address&) const = default;
  // "tcp:127.0.0.1:10809", "tcp:[::1]:0", "unix:/run/gantry.sock", "vsock:any:10809", "systemd",
  // "systemd:NAME"
  std::string text() const;
};

// The machines that a vsock address may name with a word.
inline constexpr std::uint32_t cid_any = 0xffffffff;
inline constexpr std::uint32_t cid_local = 1;
inline constexpr std::uint32_t cid_host = 2;

// What Address::text() gives; a relative path starts from `folder` ("" is the current one).
// Errors: invalid_argument.
Result<Address> parse_address(std::string_view text, const std::string& folder = "");

// `text` with everything but letters, digits and -._~ as %XX; those in `kept`, too, stay as they
// are.
std::string percent_encode(std::string_view text, std::string_view kept = "");
// One word of a POSIX shell's command line.
std::string shell_word(std::string_view text);

// NBD URI specification: nbd://127.0.0.1:10809/disk, nbd+unix:///disk?socket=/run/gantry.sock
std::string nbd_uri(const Address& address, std::string_view export_name);
// Command lines, one each, with which clients on this machine reach the export.
std::vector<std::string> attach_commands(const Address& address, std::string_view export_name);

}  // namespace app
