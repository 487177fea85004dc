// fuzz_replay_test.cpp - what the fuzzers do, for a few thousand seeds and the corpus that they
// keep, in every run of the tests.
#include "tests/support/corpus.h"
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

TEST(Fuzz, OptionsDrawnByLotAreAnswered) {
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    SCOPED_TRACE(seed);
    sim::Scheduler dice(seed);
    feed_options(draw_options(dice));
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

TEST(Fuzz, KeptNegotiationsAreSurvived) { replay_corpus("negotiation", feed_negotiation); }
TEST(Fuzz, KeptOptionsAreAnswered) { replay_corpus("options", feed_options); }
TEST(Fuzz, KeptRequestsAreSurvived) { replay_corpus("requests", feed_requests); }

}  // namespace
}  // namespace test
