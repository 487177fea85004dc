// toml_fuzz.cpp - a configuration file.
#include "tests/fuzz/stop_at_findings.h"
#include "tests/support/text_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  test::feed_toml({reinterpret_cast<const char*>(data), size});
  return 0;
}
