// fuzz_replay_test.cpp - what the fuzzers keep of files that the graph reads: rules of blkdebug,
// logs of writes.
#include "tests/support/corpus.h"
#include "tests/support/text_fuzz.h"

namespace test {
namespace {

TEST(Fuzz, KeptFaultFilesAreReadOrRefused) { replay_corpus("fault_file", feed_fault_file); }
TEST(Fuzz, KeptWriteLogsGoOnOrAreRefused) { replay_corpus("write_log", feed_write_log); }

}  // namespace
}  // namespace test
