// write_log_fuzz.cpp - a log of writes that is to go on.
#include "tests/fuzz/stop_at_findings.h"
#include "tests/support/text_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  test::feed_write_log({reinterpret_cast<const char*>(data), size});
  return 0;
}
