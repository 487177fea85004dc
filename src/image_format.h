// image_format.h - looks at an image file before it is served as the raw bytes that it is.
#pragma once

#include <string>

#include "graph/base/home.h"
#include "graph/base/task.h"

namespace app {

// Errors: invalid_argument, with the words to add to the command line, when `image` looks like a
// format other than raw; what opening and reading it says.
Task<> refuse_other_formats(Home& home, const std::string& image);

}  // namespace app
