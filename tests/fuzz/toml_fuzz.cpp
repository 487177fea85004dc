// toml_fuzz.cpp - a configuration file: parsed, then read as far as that goes without opening
// anything.
#include <array>
#include <string_view>

#include "formats/formats.h"
#include "graph/protocol/protocol.h"
#include "src/config.h"
#include "src/toml.h"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  constexpr std::array drivers{&graph::memory_driver, &graph::null_co_driver, &formats::raw_driver};
  const auto parsed = app::parse_toml({reinterpret_cast<const char*>(data), size}, "fuzz.toml");
  if (parsed) (void)app::read_config(*parsed, drivers);
  return 0;
}
