// image_format.h - what format an image file looks like, for who does not say it.
#pragma once

#include <string>

#include "graph/base/home.h"
#include "graph/base/task.h"

namespace app {

// Errors: invalid_argument, with the words to add to the command line, when `image` looks like a
// format other than raw; what opening and reading it says.
Task<> refuse_other_formats(Home& home, const std::string& image);

// The format of `image`: `told`, or, when that is "", what it looks like. For commands at the
// command line only. Errors: what opening and reading it says.
Task<std::string> format_of_image(Home& home, const std::string& image, std::string told);

}  // namespace app
