// nbd_fuzz.h - bytes of a client, thrown at a server: what the fuzzers and the tests that replay
// seeds have in common. A server that misbehaves fails the test, or ends the fuzzer.
#pragma once

#include <string>
#include <string_view>

#include "tests/support/sim_executor.h"

namespace test {

// What follows the greeting. The first byte chooses segments and seed.
void feed_negotiation(std::string_view bytes);
// Options with a correct header, one after the other: a byte chooses which, two give the length of
// the payload that follows. Each must be answered to the end. The first byte as above; the second
// says whether structured replies are agreed on first.
void feed_options(std::string_view bytes);
// What follows a negotiation that went well; the first byte chooses segments and seed, the second
// how it was done.
void feed_requests(std::string_view bytes);

// Inputs that are nearly right, drawn by lot.
std::string draw_negotiation(sim::Scheduler& dice);
std::string draw_options(sim::Scheduler& dice);
std::string draw_requests(sim::Scheduler& dice);

}  // namespace test
