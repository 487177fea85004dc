// main.cpp - of every test binary: GoogleTest, and GANTRY_SEED to repeat a run of the tests that
// draw lots.
#include <gtest/gtest.h>

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
