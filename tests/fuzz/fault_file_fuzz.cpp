// fault_file_fuzz.cpp - a file with rules of blkdebug.
#include "tests/fuzz/stop_at_findings.h"
#include "tests/support/text_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  test::feed_fault_file({reinterpret_cast<const char*>(data), size});
  return 0;
}
