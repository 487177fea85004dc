// fuzz_replay_test.cpp - what the fuzzers keep of configurations.
#include "tests/support/corpus.h"
#include "tests/support/text_fuzz.h"

namespace test {
namespace {

TEST(Fuzz, KeptConfigurationsAreReadOrRefused) { replay_corpus("toml", feed_toml); }

}  // namespace
}  // namespace test
