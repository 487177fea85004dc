// session.h - what client and server have agreed on in the handshake.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

#include "nbd/offer.h"

namespace nbd {

class Export;

inline constexpr std::uint32_t payload_max = 32 << 20;  // advertised to the client, bytes
// What was on its way when a stop began gets its ESHUTDOWN or ERR_SHUTDOWN within this time.
inline constexpr auto stop_grace = std::chrono::milliseconds(50);

struct Session {
  std::shared_ptr<const Offer> offer;  // what was chosen
  Export* item = nullptr;              // its export; known from Server::attach() on
  std::uint16_t flags = 0;             // transmission flags as the client saw them
  std::uint32_t minimum_block = 1;     // what the client must keep to, bytes
  bool structured_replies = false;
  bool base_allocation = false;  // BLOCK_STATUS may be asked
};

}  // namespace nbd
