// include.h - a TOML file and the files that it includes, as one tree.
#pragma once

#include <string>

#include "graph/base/options.h"

namespace app {

// `include = ["exports.d/*.toml"]` at the top level of a file: names and patterns, relative to the
// file's folder, matched as a shell would, in the order of their names. Included files may have
// every key, and include others. Tables of the same name are merged; what is in such a table (a
// node, an export, a key of [server]) is defined once.
// Errors: those of load_toml(); invalid_argument, with the position, for what is defined twice, a
// file that includes itself, and a name without wildcards that leads nowhere.
Result<Options> load_with_includes(const std::string& path);

}  // namespace app
