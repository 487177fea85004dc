// fuzz_replay_test.cpp - what the fuzzers keep of configurations and of control clients.
#include "tests/support/control_fuzz.h"
#include "tests/support/corpus.h"
#include "tests/support/text_fuzz.h"

namespace test {
namespace {

TEST(Fuzz, KeptConfigurationsAreReadOrRefused) { replay_corpus("toml", feed_toml); }

TEST(Fuzz, KeptControlClientsAreAnswered) { replay_corpus("control", feed_control); }

}  // namespace
}  // namespace test
