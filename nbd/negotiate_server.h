// negotiate_server.h - from the greeting to the moment when both sides agree on an export: option
// haggling. Spec: proto.md, "Newstyle negotiation", "Fixed newstyle negotiation", "Option types".
#pragma once

#include "graph/base/stream.h"
#include "nbd/lobby.h"

namespace nbd {

// Errors: connection_lost (the peer left, or aborted in good order), invalid_argument (it broke the
// rules in a way that leaves no way to answer): close the stream in either case. Cancel: close the
// stream.
Task<Session> negotiate(Stream& stream, Lobby& lobby);

}  // namespace nbd
