// client.h - `gantry ctl`: one command to a running daemon.
#pragma once

#include <functional>
#include <string_view>

#include "graph/base/json.h"
#include "graph/base/stream.h"
#include "src/command_line.h"
#include "src/worker.h"

namespace app::control {

// Greets, agrees, sends the command, and gives what is returned. `event` hears of events in
// between. Works with any server that speaks QMP.
// Lifetime: the parameters outlive the task.
// Errors: invalid_argument with what the server says of the command; connection_lost; corrupt when
// it does not speak QMP.
Task<Json> call(Stream& stream, std::string_view command, const Json& arguments,
                const std::function<void(const Json&)>& event);

// The command `gantry ctl`: the result on stdout, events on stderr.
Task<int> ctl(Worker& worker, const CtlCommand& command);

}  // namespace app::control
