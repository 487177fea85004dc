// text_fuzz.h - files from outside, thrown at what decodes them: what the fuzzers and the tests
// that replay their corpus have in common. No file that they name is opened.
#pragma once

#include <string_view>

namespace test {

// A configuration: parsed, then read as far as that goes without opening anything.
void feed_toml(std::string_view bytes);
// Rules of blkdebug.
void feed_fault_file(std::string_view bytes);
// A log of writes that blklogwrites is to go on with. One that it takes stays a log, which it takes
// again with as many entries more as it added.
void feed_write_log(std::string_view bytes);

}  // namespace test
