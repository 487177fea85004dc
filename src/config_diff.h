// config_diff.h - what a configuration file says differently than the running daemon.
#pragma once

#include <string>
#include <vector>

#include "src/config.h"

namespace app {

// The keys of [server], and the nodes and exports ("nodes.disk", "exports.disk"), that differ and
// that a running daemon does not take over: all but log-level and the allow lists of listeners.
// Requires: both were read by load_config().
std::vector<std::string> differences(const Config& running, const Config& fresh);

}  // namespace app
