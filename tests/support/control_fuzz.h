// control_fuzz.h - bytes from outside, thrown at the control socket: what the fuzzer and the test
// that replays its corpus have in common.
#pragma once

#include <string_view>

namespace test {

// What a control client says once it is connected, in pieces of a length that the first byte
// chooses. Expects replies that are JSON objects, a session that ends with the client, and a next
// client that is served.
void feed_control(std::string_view bytes);

}  // namespace test
