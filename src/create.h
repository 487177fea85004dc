// create.h - the command `create`.
#pragma once

#include "src/command_line.h"
#include "src/worker.h"

namespace app {

// The formats that it can make.
std::vector<std::string> creatable_formats();

// "a=1,b=2" as keys and values; two commas stand for one in a value.
// Errors: invalid_argument when there is no '='.
Result<std::vector<std::pair<std::string, std::string>>> parse_option_words(std::string_view text);

// Makes the image that `command` describes. A file that is there already is not touched without
// `force`; one that was not is removed when making the image fails.
Task<int> create_image(Worker& worker, const CreateCommand& command, Drivers drivers);

// Makes an image where there is no file of its name. Errors: with the position of its key.
Task<> make_missing_image(Home& home, Drivers drivers, const NewImage& image);

}  // namespace app
