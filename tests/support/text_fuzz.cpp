#include "tests/support/text_fuzz.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <string>

#include "formats/formats.h"
#include "graph/filter/fault_config.h"
#include "graph/filter/filter.h"
#include "graph/filter/write_log.h"
#include "graph/protocol/protocol.h"
#include "src/config.h"
#include "src/toml.h"
#include "tests/support/graph_fixture.h"

namespace test {
namespace {

constexpr std::array drivers{&graph::file_driver,     &graph::host_device_driver,
                             &graph::memory_driver,   &graph::null_co_driver,
                             &formats::qcow2_driver,  &formats::raw_driver,
                             &graph::blkdebug_driver, &graph::blklogwrites_driver};

// A failure says where it is wrong, or it helps nobody.
template <class T>
void expect_position(const Result<T>& read, std::string_view file) {
  if (read) return;
  EXPECT_EQ(read.error().code, Errc::invalid_argument) << read.error().message;
  EXPECT_TRUE(read.error().message.starts_with(file)) << read.error().message;
  EXPECT_FALSE(read.error().message.contains('\n')) << read.error().message;
}

std::uint64_t entries_of(std::string_view log) {
  graph::LogSuperblock super;
  if (log.size() < sizeof(super)) return 0;
  std::memcpy(static_cast<void*>(&super), log.data(), sizeof(super));
  return super.entries;
}

constexpr std::string_view appending =
    "driver = 'blklogwrites'\nfile = 'disk'\nlog = 'log'\nlog-append = true\n";

}  // namespace

void feed_toml(std::string_view bytes) {
  const auto parsed = app::parse_toml(bytes, "fuzz.toml");
  expect_position(parsed, "fuzz.toml:");
  if (parsed) expect_position(app::read_config(*parsed, drivers), "fuzz.toml:");
}

void feed_fault_file(std::string_view bytes) {
  graph::FaultRules rules;
  expect_position(add_fault_rules_of_file(rules, bytes, "fuzz.cfg"), "fuzz.cfg:");
}

void feed_write_log(std::string_view bytes) {
  const std::uint64_t before = entries_of(bytes);
  std::string grown;
  {
    Bench bench;
    bench.disk("disk", 4096);
    Disk& log = bench.disk("log", std::string(bytes));
    const auto logged = bench.try_add("logged", appending);
    if (!logged) {
      EXPECT_EQ(logged.error().code, Errc::corrupt) << logged.error().message;
      EXPECT_EQ(log.content, bytes);
      return;
    }
    View& view = bench.writer(**logged);
    EXPECT_OK(bench.write(view, 512, "a write"));
    EXPECT_OK(bench.flush(view));
    grown = log.content;
  }
  EXPECT_EQ(entries_of(grown), before + 2);
  Bench bench;
  bench.disk("disk", 4096);
  bench.disk("log", std::move(grown));
  EXPECT_OK(bench.try_add("logged", appending));
}

}  // namespace test
