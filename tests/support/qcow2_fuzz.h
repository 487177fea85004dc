// qcow2_fuzz.h - pieces of a qcow2 image, thrown at what decodes them: what the fuzzers and the
// tests that replay their corpus have in common.
#pragma once

#include <string_view>

namespace test {

// A first cluster. One that is taken is formatted into the same header again.
void feed_qcow2_header(std::string_view bytes);
// A snapshot table. Entries that are taken are formatted into the same entries again.
void feed_qcow2_snapshots(std::string_view bytes);
// Cluster bits, a count, then a bitmap directory; the same.
void feed_qcow2_bitmaps(std::string_view bytes);

}  // namespace test
