// reload.h - what a running daemon takes over from its configuration file when it gets SIGHUP.
#pragma once

#include "graph/base/log.h"
#include "src/config.h"
#include "src/listeners.h"

namespace app {

// Reads the file of `running` again. The log level and the allow lists of listeners take effect;
// what else differs is named in the log. With a mistake in the file one line says so, and nothing
// changes.
void reload(const Config& running, Drivers drivers, Log& log, Listeners& listeners);

}  // namespace app
