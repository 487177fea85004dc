// small_site.h - a configuration alive in a simulated worker, with a driver that tells what
// happened to it.
#pragma once

#include <array>
#include <cassert>
#include <string>
#include <string_view>
#include <vector>

#include "formats/formats.h"
#include "graph/driver.h"
#include "graph/protocol/protocol.h"
#include "src/site.h"
#include "src/toml.h"
#include "tests/support/world.h"

namespace app {

// driver = "witness": 1 MiB of nothing; `flush = "fails"` makes it lose what it was given. It notes
// what is asked of it in the log of its worker.
extern const graph::Driver witness_driver;
// driver = "album": 1 MiB of nothing that has snapshots, see album.cpp.
extern const graph::Driver album_driver;

inline constexpr std::array small_drivers{&graph::memory_driver, &formats::raw_driver,
                                          &witness_driver, &album_driver};

// 1 MiB that reads as zero and forgets what is written.
class Blank : public graph::Protocol {
 public:
  std::uint64_t own_size() const override { return 1 * MiB; }
  graph::Growth growth() const override { return graph::Growth::never; }
  Task<> read(std::uint64_t, const Buffers& out) override {
    fill_zero(out);
    return succeeded();
  }
  Task<> write(std::uint64_t, const ConstBuffers&, graph::WriteFlags) override {
    return succeeded();
  }
};

// Requires: nothing is wrong with `text`.
inline Config small_config(std::string_view text) {
  const auto root = parse_toml(text, "a.toml");
  assert(root);
  auto config = read_config(*root, small_drivers);
  assert(config);
  return *std::move(config);
}

class SmallSite {
 public:
  explicit SmallSite(std::string_view text)
      : config(small_config(text)),
        world(1),
        site(world.home, {&world.home}, config, small_drivers) {}

  // What is wrong, or "".
  std::string open() { return said(world.run(site.open())); }
  std::string close() { return said(world.run(site.close())); }
  graph::BlockBackend& view(std::string_view name) {
    for (const auto& cell : site.cells()) {
      if (nbd::Export* item = cell->server().find(name)) return item->view();
    }
    std::abort();  // the test names what it has described
  }
  bool was_logged(std::string_view line) const {
    return std::ranges::find(world.log.lines, line) != world.log.lines.end();
  }

 private:
  static std::string said(const Result<>& done) { return done ? "" : done.error().message; }

 public:
  const Config config;
  sim::World world;
  Site site;
};

}  // namespace app
