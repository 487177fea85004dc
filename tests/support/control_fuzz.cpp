#include "tests/support/control_fuzz.h"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <string>

#include "formats/formats.h"
#include "graph/protocol/protocol.h"
#include "src/control/json_reader.h"
#include "src/control/server.h"
#include "src/toml.h"
#include "tests/support/sim_stream.h"
#include "tests/support/world.h"

namespace test {
namespace {

constexpr std::array drivers{&graph::memory_driver, &graph::null_co_driver, &formats::raw_driver};
constexpr std::string_view disks =
    "[nodes.m]\ndriver = 'memory'\nsize = '1M'\n[nodes.r]\ndriver = 'raw'\nfile = 'm'\n"
    "[nodes.n]\ndriver = 'null-co'\nsize = '1M'\n[exports.disk]\nnode = 'r'\nwritable = true\n";

class Daemon final : public app::control::Host {
 public:
  Daemon()
      : config_(*app::read_config(*app::parse_toml(disks, "fuzz.toml"), drivers)),
        site_(world_.home, {&world_.home}, config_, drivers),
        server_(world_.home, *this) {
    EXPECT_TRUE(world_.run(site_.open()));
  }
  ~Daemon() override {
    EXPECT_TRUE(world_.run(stop()));
    EXPECT_TRUE(world_.run(site_.close()));
  }

  app::Site& site() override { return site_; }
  void quit() override {}

  // What the server has said when the client has said all of it, in pieces of `length`.
  std::string talk(std::string_view bytes, std::size_t length) {
    sim::StreamPair pair = sim::stream_pair(world_.scheduler, {});
    server_.receive(std::move(pair.server));
    std::string heard;
    while (!bytes.empty()) {
      const std::string_view piece = bytes.substr(0, length);
      bytes.remove_prefix(piece.size());
      const ConstBuffers list(bytes_of(piece));
      if (!pair.client->write_now(list)) break;  // the session is over
      hear(*pair.client, heard);
    }
    pair.client->end();
    hear(*pair.client, heard);
    EXPECT_EQ(server_.sessions(), 0U);
    return heard;
  }

 private:
  Task<> stop() {
    co_await server_.stop();
    co_return ok;
  }
  void hear(sim::SimStream& client, std::string& heard) {
    std::array<std::byte, 4096> some{};
    while (true) {
      world_.scheduler.run();
      const Result<std::size_t> got = client.read_now(some);
      if (!got || *got == 0) return;
      heard.append(reinterpret_cast<const char*>(some.data()), *got);
    }
  }

  sim::World world_{1};
  const app::Config config_;
  app::Site site_;
  app::control::Server server_;
};

void expect_messages(std::string_view heard) {
  app::control::JsonReader reader;
  std::size_t count = 0;
  while (auto message = reader.take(heard)) {
    ++count;
    EXPECT_TRUE(*message && (*message)->object() != nullptr);
  }
  EXPECT_GE(count, 1U);  // the greeting
}

}  // namespace

void feed_control(std::string_view bytes) {
  if (bytes.empty()) return;
  const std::size_t length = 1 + static_cast<unsigned char>(bytes.front());
  bytes.remove_prefix(1);
  Daemon daemon;
  expect_messages(daemon.talk(bytes, length));
  const std::string polite = daemon.talk(
      "{\"execute\": \"qmp_capabilities\"}{\"execute\": \"query-named-block-nodes\", \"id\": 7}",
      1000);
  expect_messages(polite);
  EXPECT_TRUE(polite.contains("\"id\": 7}")) << polite;
}

}  // namespace test
