// toml_fuzz.cpp - a configuration file.
#include <gtest/gtest.h>

#include "tests/support/text_fuzz.h"

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  GTEST_FLAG_SET(break_on_failure, true);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  test::feed_toml({reinterpret_cast<const char*>(data), size});
  return 0;
}
