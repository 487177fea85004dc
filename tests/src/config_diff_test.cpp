#include "src/config_diff.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "formats/formats.h"
#include "graph/protocol/protocol.h"
#include "src/toml.h"

namespace app {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::array drivers{&graph::memory_driver, &formats::raw_driver};

Config read(const std::string& text) {
  const auto root = parse_toml(text, "conf/a.toml");
  auto config = root ? read_config(*root, drivers) : std::unexpected(root.error());
  EXPECT_TRUE(config) << config.error().message;
  return config ? *std::move(config) : Config();
}

std::vector<std::string> between(const std::string& running, const std::string& fresh) {
  return differences(read(running), read(fresh));
}

const std::string node = "[nodes.m]\ndriver = 'memory'\nsize = '1M'\n";

TEST(Differences, AreNoneForWhatMeansTheSame) {
  EXPECT_THAT(between("", ""), IsEmpty());
  EXPECT_THAT(between(node, "# moved\n\n[nodes.m]\nsize = '1M'\ndriver = 'memory'\n"), IsEmpty());
}

TEST(Differences, AreNoneForWhatARunningDaemonTakesOver) {
  EXPECT_THAT(
      between("[server]\nlisten = ['tcp:h:1']\n",
              "[server]\nlog-level = 'debug'\nlisten = [{ tcp = 'h:1', allow = ['::1'] }]\n"),
      IsEmpty());
}

TEST(Differences, NameKeysNodesAndExports) {
  EXPECT_THAT(between("[server]\nlisten = 'tcp:h:1'\nmax-connections = 1\n" + node,
                      "[server]\nlisten = 'tcp:h:2'\ndrain-timeout = '1s'\n" + node +
                          "[exports.e]\nnode = 'm'\n"),
              ElementsAre("drain-timeout", "max-connections", "listen", "exports.e"));
  EXPECT_THAT(between(node, "[nodes.m]\ndriver = 'memory'\nsize = '2M'\n"), ElementsAre("nodes.m"));
  EXPECT_THAT(between(node, ""), ElementsAre("nodes.m"));
}

TEST(Differences, SeeAnotherControlSocket) {
  EXPECT_THAT(between("", "[server]\ncontrol = 'unix:c'\n"), ElementsAre("control"));
  EXPECT_THAT(between("[server]\ncontrol = 'unix:c'\n", "[server]\ncontrol = 'unix:d'\n"),
              ElementsAre("control"));
}

TEST(Differences, SeeTheModeOfASocketAndNamesWithDots) {
  EXPECT_THAT(between("[server]\nlisten = 'unix:s'\n",
                      "[server]\nlisten = { unix = 's', mode = '0600' }\n"),
              ElementsAre("listen"));
  EXPECT_THAT(between(node + "[exports.'a.b']\nnode = 'm'\n",
                      node + "[exports.'a.b']\nnode = 'm'\nwritable = true\n"),
              ElementsAre("exports.a.b"));
}

}  // namespace
}  // namespace app
