// qcow2_bitmaps_fuzz.cpp - a bitmap directory of a qcow2 image.
#include "tests/fuzz/stop_at_findings.h"
#include "tests/support/qcow2_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  test::feed_qcow2_bitmaps({reinterpret_cast<const char*>(data), size});
  return 0;
}
