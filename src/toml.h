// toml.h - a TOML file as a tree of options, each with its place in the file. toml++ stays behind
// it.
#pragma once

#include <string>
#include <string_view>

#include "graph/base/options.h"

namespace app {

// Relative file names in the tree start from the file's own folder.
// Errors: invalid_argument, "FILE:LINE:COL: what is wrong"; what reading the file says.
Result<Options> load_toml(const std::string& path);
// The same for a text that stands in `file`.
Result<Options> parse_toml(std::string_view text, const std::string& file);

}  // namespace app
