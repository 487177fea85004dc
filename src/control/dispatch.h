// dispatch.h - one request of a control client becomes its reply.
// Spec: QEMU, docs/interop/qmp-spec, "Issuing Commands", "Command Responses", "Capabilities
// Negotiation".
#pragma once

#include "src/control/command.h"
#include "src/control/turns.h"

namespace app::control {

// What one client has agreed on.
struct Agreement {
  bool negotiated = false;  // before that there is only qmp_capabilities
  bool oob = false;         // it may send exec-oob
};

struct Reply {
  Json message;
  After after = After::nothing;
};

// The first thing that a client hears.
Json greeting();
// The version that is told: that of QEMU whose commands these are, and our own as the package.
Json version();

// Lifetime: the parameters outlive it.
asio::awaitable<Reply> reply_to(Host& host, Turns& turns, Agreement& agreement,
                                const Result<Json>& request);

// {"event": name, "data": data, "timestamp": ...}, as of now.
Json event_message(std::string_view name, Json data);

}  // namespace app::control
