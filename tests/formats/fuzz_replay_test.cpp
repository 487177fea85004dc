// fuzz_replay_test.cpp - what the fuzzers keep of images.
#include "tests/support/corpus.h"
#include "tests/support/qcow2_fuzz.h"

namespace test {
namespace {

TEST(Fuzz, KeptHeadersOfQcow2AreReadOrRefused) { replay_corpus("qcow2_header", feed_qcow2_header); }
TEST(Fuzz, KeptSnapshotTablesOfQcow2AreReadOrRefused) {
  replay_corpus("qcow2_snapshots", feed_qcow2_snapshots);
}
TEST(Fuzz, KeptBitmapDirectoriesOfQcow2AreReadOrRefused) {
  replay_corpus("qcow2_bitmaps", feed_qcow2_bitmaps);
}

}  // namespace
}  // namespace test
