// stop_at_findings.h - for the one file of each fuzz target: an expectation that fails is a finding
// like any other, and libFuzzer keeps the input that made it.
#pragma once

#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  GTEST_FLAG_SET(break_on_failure, true);
  // GoogleTest breaks with a signal that libFuzzer does not know
  std::signal(SIGTRAP, [](int) { std::abort(); });
  return 0;
}
