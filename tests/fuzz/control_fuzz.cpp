// control_fuzz.cpp - what a client of the control socket says.
#include "tests/support/control_fuzz.h"

#include <gtest/gtest.h>

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  GTEST_FLAG_SET(break_on_failure, true);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  test::feed_control({reinterpret_cast<const char*>(data), size});
  return 0;
}
