// negotiate_server.h - from the greeting to the moment when both sides agree on an export: option
// haggling. Spec: proto.md, "Newstyle negotiation", "Fixed newstyle negotiation", "Option types".
#pragma once

#include <cstddef>
#include <cstdint>

#include "graph/base/stream.h"
#include "nbd/server.h"

namespace nbd {

inline constexpr std::size_t option_length_max =
    1 << 20;  // longer: the peer is cut off (statement 24)
inline constexpr std::size_t option_bytes_max = 16 << 20;  // in one session (statement 25)
inline constexpr std::size_t options_base_max =
    256;  // in one session, and two more for each export
inline constexpr std::uint32_t payload_max = 32 << 20;  // advertised to the client

// What both sides agreed on.
struct Session {
  Export* item = nullptr;
  std::uint16_t flags = 0;          // transmission flags as the client saw them
  std::uint32_t minimum_block = 1;  // what the client must keep to, bytes
  bool structured_replies = false;
  bool base_allocation = false;  // BLOCK_STATUS may be asked
};

// Errors: connection_lost (the peer left, or aborted in good order), invalid_argument (it broke the
// rules in a way that leaves no way to answer): close the stream in either case. Cancel: close the
// stream.
Task<Session> negotiate(Stream& stream, Server& server);

}  // namespace nbd
