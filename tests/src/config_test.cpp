#include "src/config.h"

#include <gtest/gtest.h>

#include <array>

#include "formats/formats.h"
#include "graph/protocol/protocol.h"
#include "src/toml.h"

namespace app {
namespace {

constexpr std::array drivers{&graph::memory_driver, &graph::null_co_driver, &formats::raw_driver};

Result<Config> read(std::string_view text) {
  TRY(const Options root, parse_toml(text, "conf/a.toml"));
  return read_config(root, drivers);
}

// What is said about `text`; "" when nothing is wrong with it.
std::string complaint(std::string_view text) {
  const auto config = read(text);
  return config ? "" : config.error().message;
}

TEST(Config, HasDefaults) {
  const auto config = read("");

  ASSERT_TRUE(config) << config.error().message;
  EXPECT_TRUE(config->listen.empty());
  EXPECT_EQ(config->limits.connections_max, 100u);
  EXPECT_EQ(config->limits.handshake_timeout, std::chrono::seconds(10));
  EXPECT_EQ(config->limits.drain_timeout, std::chrono::seconds(10));
  EXPECT_EQ(config->io_engine, EngineKind::automatic);
  EXPECT_EQ(config->log_level, LogLevel::info);
}

TEST(Config, TakesEveryKeyOfAServer) {
  const auto config = read(
      "[server]\nlisten = ['unix:g.sock', 'tcp:[::1]:0']\nmax-connections = 7\n"
      "handshake-timeout = '500ms'\ndrain-timeout = '2min'\nio-engine = 'threads'\n"
      "log-level = 'debug'\nlog-format = 'json'\n");

  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->listen[0].address.text(), "unix:conf/g.sock");
  EXPECT_EQ(config->listen[1].address.text(), "tcp:[::1]:0");
  EXPECT_EQ(config->limits.connections_max, 7u);
  EXPECT_EQ(config->limits.handshake_timeout, std::chrono::milliseconds(500));
  EXPECT_EQ(config->limits.drain_timeout, std::chrono::minutes(2));
  EXPECT_EQ(config->io_engine, EngineKind::threads);
  EXPECT_EQ(config->log_level, LogLevel::debug);
  EXPECT_EQ(config->log_format, LogFormat::json);
}

TEST(Config, GivesEachConnectionAShareOfTheMemoryAndLendsTheRest) {
  const auto usual = read("");
  const auto tight = read("[server]\nbuffer-memory = '1M'\n");
  ASSERT_TRUE(usual && tight);

  EXPECT_EQ(usual->limits.own_memory(), 256 * MiB / 4 / 100);
  EXPECT_EQ(usual->limits.own_memory() * 100 + usual->limits.lent_memory(), 256 * MiB);
  EXPECT_EQ(tight->limits.own_memory(), 4 * KiB);
  EXPECT_EQ(tight->limits.lent_memory(), 1 * MiB - 400 * KiB);
}

TEST(Config, RefusesLimitsThatMakeNoSense) {
  const std::pair<std::string_view, std::string_view> mistakes[] = {
      {"workers = -1", "'workers': -1 is not in 0 to 1024"},
      {"max-connections = 0", "'max-connections': 0 is not in 1 to 1000000"},
      {"max-connections-per-peer = 0", "'max-connections-per-peer': 0 is not in 1 to 1000000"},
      {"max-handshakes = -3", "'max-handshakes': -3 is not in 1 to 1000000"},
      {"max-options = 0", "'max-options': 0 is not in 1 to 1000000"},
      {"max-option-bytes = '4K'", "'max-option-bytes': 4096 is not in 4160 to 64M"},
      {"max-requests-in-flight = 0", "'max-requests-in-flight': 0 is not in 1 to 1000000"},
      {"max-bytes-in-flight = 1", "'max-bytes-in-flight': 1 is not in 64K to 64G"},
      {"buffer-memory = '64K'", "'buffer-memory': 64K is too little for 100 connections"},
      {"buffer-memory = 'much'", "'buffer-memory': "},
      {"peer-timeout = '10ms'", "'peer-timeout': less than 1s; 0s leaves it to the system"},
      {"io-engine = 'aio'", "'io-engine': "},
  };
  for (const auto& [line, complaint] : mistakes) {
    const auto config = read("[server]\n" + std::string(line) + "\n");
    ASSERT_FALSE(config) << line;
    EXPECT_TRUE(config.error().message.contains(complaint)) << config.error().message;
    EXPECT_TRUE(config.error().message.contains(":2:")) << config.error().message;
  }
}

TEST(Config, TakesOneAddressWithoutAList) {
  const auto config = read("[server]\nlisten = 'tcp:localhost:0'\n");

  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->listen.at(0).address.text(), "tcp:localhost:0");
  EXPECT_EQ(config->listen.at(0).position.prefix(), "conf/a.toml:2:1: ");
}

TEST(Config, TakesAControlSocketThatOnlyItsOwnerReaches) {
  const auto none = read("");
  const auto config = read("[server]\ncontrol = 'unix:c.sock'\n");

  ASSERT_TRUE(config && none);
  EXPECT_FALSE(none->control);
  EXPECT_EQ(config->control->address.text(), "unix:conf/c.sock");
  EXPECT_EQ(config->control->file.mode, 0600u);
}

TEST(Config, RefusesAControlSocketThatIsNone) {
  const auto said = [](const std::string& value) {
    return complaint("[server]\ncontrol = " + value + "\n");
  };
  EXPECT_EQ(said("'tcp:127.0.0.1:4444'"),
            "conf/a.toml:2:1: 'control': tcp:127.0.0.1:4444 is no socket with a file: expected "
            "\"unix:PATH\"");
  EXPECT_EQ(said("'systemd'"),
            "conf/a.toml:2:1: 'control': systemd is no socket with a file: expected \"unix:PATH\"");
  EXPECT_EQ(said("7"), "conf/a.toml:2:1: 'control': expected a string, not an integer");
  EXPECT_EQ(said("['unix:s']"), "conf/a.toml:2:1: 'control': expected a string, not a list");
  EXPECT_NE(said("'unix:" + std::string(200, 'p') + "'"), "");
  EXPECT_NE(said("'c.sock'"), "");
}

TEST(Config, TakesEveryKeyOfAnExport) {
  const auto config = read(
      "[nodes.m]\ndriver = 'memory'\n[exports.'']\nnode = 'm'\n"
      "[exports.disk]\nnode = 'm'\nwritable = true\ndescription = 'd'\noffset = '1M'\n"
      "size = 4096\nwrite-through = true\n");

  ASSERT_TRUE(config) << config.error().message;
  ASSERT_EQ(config->exports.size(), 2u);
  const ExportConfig& plain = config->exports[0];
  EXPECT_EQ(plain.name, "");
  EXPECT_FALSE(plain.writable);
  EXPECT_FALSE(plain.size);
  const ExportConfig& full = config->exports[1];
  EXPECT_EQ(full.name, "disk");
  EXPECT_TRUE(full.writable);
  EXPECT_EQ(full.description, "d");
  EXPECT_EQ(full.offset, 1 * MiB);
  EXPECT_EQ(full.size, 4096u);
  EXPECT_TRUE(full.write_through);
}

TEST(Config, PutsChildrenBeforeParentsWhateverTheOrderInTheFile) {
  const auto config = read(
      "[nodes.top]\ndriver = 'raw'\nfile = { driver = 'raw', file = 'middle' }\n"
      "[nodes.middle]\ndriver = 'raw'\nfile = 'bottom'\n"
      "[nodes.bottom]\ndriver = 'memory'\n");

  ASSERT_TRUE(config) << config.error().message;
  std::string order;
  for (const NodeConfig& node : config->nodes) order += node.name + " ";
  EXPECT_EQ(order, "bottom middle top ");
}

TEST(Config, NamesTheNearestKey) {
  EXPECT_EQ(complaint("inclde = ['more.toml']\n"),
            "conf/a.toml:1:1: unknown key 'inclde', did you mean 'include'?");
  EXPECT_EQ(complaint("[sever]\n"), "conf/a.toml:1:2: unknown key 'sever', did you mean 'server'?");
  EXPECT_EQ(complaint("[server]\nlog-lvel = 'info'\n"),
            "conf/a.toml:2:1: unknown key 'log-lvel', did you mean 'log-level'?");
  EXPECT_EQ(complaint("[nodes.m]\ndriver = 'memory'\nsiez = 1\n"),
            "conf/a.toml:3:1: unknown key 'siez', did you mean 'size'?");
  EXPECT_EQ(complaint("[nodes.m]\ndriver = 'memory'\n[exports.e]\nnode = 'm'\nwriteable = true\n"),
            "conf/a.toml:5:1: unknown key 'writeable', did you mean 'writable'?");
}

TEST(Config, RefusesAWrongType) {
  EXPECT_EQ(complaint("[server]\nmax-connections = '7'\n"),
            "conf/a.toml:2:1: 'max-connections': expected an integer, not a string");
  EXPECT_EQ(complaint("[server]\nlog-level = 'loud'\n"),
            "conf/a.toml:2:1: 'log-level': 'loud' is none of debug, info, warning, error");
  EXPECT_EQ(complaint("nodes = 3\n"), "conf/a.toml:1:1: 'nodes': expected a table, not an integer");
  EXPECT_EQ(complaint("[nodes]\nm = 'memory'\n"),
            "conf/a.toml:2:1: 'nodes.m': expected a table, not a string");
}

TEST(Config, RefusesABadNumberAndABadWord) {
  EXPECT_EQ(complaint("[server]\nlog-format = 'xml'\n"),
            "conf/a.toml:2:1: 'log-format': 'xml' is none of text, json");
  EXPECT_EQ(complaint("[server]\nmax-connections = 0\n"),
            "conf/a.toml:2:1: 'max-connections': 0 is not in 1 to 1000000");
}

TEST(Config, RefusesANodeThatIsNotThere) {
  EXPECT_EQ(complaint("[nodes.disk]\ndriver = 'raw'\nfile = 'dsk-file'\n"
                      "[nodes.disk-file]\ndriver = 'memory'\n"),
            "conf/a.toml:3:1: disk: there is no node 'dsk-file', did you mean 'disk-file'?");
  EXPECT_EQ(complaint("[nodes.disk]\ndriver = 'memory'\n[exports.e]\nnode = 'dish'\n"),
            "conf/a.toml:4:1: export 'e': there is no node 'dish', did you mean 'disk'?");
  EXPECT_EQ(complaint("[exports.e]\nwritable = true\n"),
            "conf/a.toml:1:1: export 'e': the key 'node' is missing");
}

TEST(Config, NamesACycle) {
  EXPECT_EQ(complaint("[nodes.a]\ndriver = 'raw'\nfile = 'b'\n"
                      "[nodes.b]\ndriver = 'raw'\nfile = { driver = 'raw', file = 'a' }\n"),
            "conf/a.toml:6:26: the nodes form a cycle: 'a' -> 'b' -> 'a'");
  EXPECT_EQ(complaint("[nodes.a]\ndriver = 'raw'\nfile = 'a'\n"),
            "conf/a.toml:3:1: the nodes form a cycle: 'a' -> 'a'");
}

TEST(Config, RefusesANameUsedTwice) {
  const std::string said =
      complaint("[nodes.a]\ndriver = 'memory'\n[nodes.a]\ndriver = 'memory'\n");

  EXPECT_TRUE(said.starts_with("conf/a.toml:3:")) << said;
  EXPECT_EQ(said.find('\n'), std::string::npos);
}

TEST(Config, RefusesANameThatIsTooLong) {
  const std::string name(32, 'n');

  EXPECT_EQ(complaint("[nodes." + name + "]\ndriver = 'memory'\n"),
            "conf/a.toml:1:1: '" + name +
                "' is no node name: 1 to 31 of A-Z a-z 0-9 - . _, a letter first");
}

TEST(Config, RefusesADriverThatIsNotThere) {
  EXPECT_EQ(complaint("[nodes.a]\ndriver = 'rav'\n"),
            "conf/a.toml:2:1: there is no driver 'rav', did you mean 'raw'?");
  EXPECT_EQ(complaint("[nodes.a]\nsize = 1\n"), "conf/a.toml:1:1: the key 'driver' is missing");
}

TEST(Config, SaysWhatIsWrongInOneLineWhateverStandsThere) {
  EXPECT_EQ(complaint("[nodes.a]\ndriver = 'null-co'\nlatency = \"10\\nm)\"\n"),
            "conf/a.toml:3:1: 'latency': '10\\x0am)' has no unit: ms, s, min or h");
  EXPECT_EQ(complaint("[nodes.a]\ndriver = \"\\null-co\"\n"),
            "conf/a.toml:2:1: there is no driver '\\x0aull-co', did you mean 'null-co'?");
  EXPECT_EQ(complaint("[nodes.a]\ndriver = 'null-co'\n\"\\n\" = 1\n"),
            "conf/a.toml:3:1: unknown key '\\x0a'");
  EXPECT_EQ(
      complaint("[nodes.\"a\\n\"]\ndriver = 'null-co'\n"),
      "conf/a.toml:1:1: 'a\\x0a' is no node name: 1 to 31 of A-Z a-z 0-9 - . _, a letter first");
  EXPECT_EQ(complaint("server.listen = \"tcp:a\\nb\"\n"),
            "conf/a.toml:1:8: 'tcp:a\\x0ab' is no address: expected tcp:HOST:PORT");
}

TEST(Config, RefusesTextThatCannotStandOnTheWire) {
  const std::string node = "[nodes.m]\ndriver = 'memory'\n";

  EXPECT_EQ(
      complaint(node + "[exports.e]\nnode = 'm'\ndescription = '" + std::string(4097, 'd') + "'\n"),
      "conf/a.toml:5:1: 'description' has 4097 bytes, at most 4096 are allowed");
  EXPECT_EQ(complaint(node + "[exports.\"a\\u0000\"]\nnode = 'm'\n"),
            "conf/a.toml:3:1: the name of an export contains a NUL");
  EXPECT_FALSE(check_wire_text("the text", "\xff"));
}

TEST(Config, KnowsNoKeysOfLaterDays) {
  EXPECT_EQ(complaint("[secrets.key]\n"), "conf/a.toml:1:2: unknown key 'secrets'");
}

}  // namespace
}  // namespace app
