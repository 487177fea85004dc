// daemon.h - the commands that open a configuration: serving it until a signal comes, checking it,
// drawing it. Each is the main coroutine of a worker and ends with the exit status of the program.
#pragma once

#include <span>
#include <string>

#include "nbd/offer.h"
#include "src/config.h"
#include "src/worker.h"

namespace app {

// Lifetime: all parameters outlive the task.
// Errors: nothing could be started; everything is closed again.

// Serves until SIGTERM or SIGINT; 1 when the last flush or closing an image failed. A second signal
// ends the process at once. Says on stdout which command lines attach to what is served.
Task<int> serve(Worker& worker, const Config& config, Drivers drivers);
// Opens all and prints it; nothing listens.
Task<int> check(Worker& worker, const Config& config, Drivers drivers);
Task<int> draw(Worker& worker, const Config& config, Drivers drivers);

// What serve() prints.
std::string attach_text(std::span<const Address> addresses, const nbd::Offers& offers);

}  // namespace app
