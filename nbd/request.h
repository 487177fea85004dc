// request.h - one request as it was read from the wire, and whether it may be carried out at all.
// Spec: proto.md, "Request message", "Request types", "Command flags", "Error values".
#pragma once

#include <cstdint>
#include <string>

#include "graph/base/buffer.h"
#include "nbd/export.h"
#include "nbd/session.h"
#include "nbd/wire.h"

namespace nbd {

// Statement 137: payloads up to this long are read and thrown away when refused; longer ones cost
// the connection.
inline constexpr std::uint32_t write_drain_max = 64 << 20;
// Statement 133: what a structured reply may be asked to stream.
inline constexpr std::uint32_t read_stream_max = 64 << 20;

struct Request {
  Command command = Command::read;
  std::uint16_t flags = 0;
  std::uint64_t cookie = 0;
  Range range;           // bytes of the export; not believed until check() said so
  PooledBuffer payload;  // WRITE
  bool has(std::uint16_t flag) const { return (flags & flag) != 0; }
};

// "write 512 bytes at 4096, cookie 7", for the log.
std::string describe(const Request& request);

struct Verdict {
  WireError error = WireError::none;
  std::string text;
  Verdict() = default;
  Verdict(WireError code, std::string why) : error(code), text(std::move(why)) {}
};

// Errors in the order of statement 115: command, flags, read-only, bounds, alignment, length.
Verdict check(const Request& request, const Session& session);

// What the error of a node or view is called on the wire (statement 116). `command` decides between
// the two names of out_of_range, and whether not_supported may be said (FAST_ZERO only).
WireError wire_error(Errc code, const Request& request);

}  // namespace nbd
