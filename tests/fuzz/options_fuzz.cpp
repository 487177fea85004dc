// options_fuzz.cpp - payloads of options with a correct header.
#include "tests/fuzz/stop_at_findings.h"
#include "tests/support/nbd_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  test::feed_options({reinterpret_cast<const char*>(data), size});
  return 0;
}
