// main.cpp - what this program is: its commands and its drivers.
#include <cstdio>

int main() {
  std::puts("gantry " GANTRY_VERSION);
  return 0;
}
