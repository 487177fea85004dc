// fuzz_replay_test.cpp - what the fuzzers do, for a few thousand seeds, in every run of the tests.
#include "tests/support/nbd_fixture.h"
#include "tests/support/nbd_fuzz.h"

namespace test {
namespace {

TEST(Fuzz, NegotiationsDrawnByLotAreSurvived) {
  for (std::uint64_t seed = 0; seed < 3000; ++seed) {
    SCOPED_TRACE(seed);
    sim::Scheduler dice(seed);
    feed_negotiation(draw_negotiation(dice));
    if (HasFailure()) return;
  }
}

TEST(Fuzz, RequestsDrawnByLotAreSurvived) {
  for (std::uint64_t seed = 0; seed < 3000; ++seed) {
    SCOPED_TRACE(seed);
    sim::Scheduler dice(seed);
    feed_requests(draw_requests(dice));
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace test
