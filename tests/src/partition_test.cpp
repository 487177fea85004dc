#include "src/partition.h"

#include <gtest/gtest.h>

#include "formats/formats.h"
#include "graph/protocol/protocol.h"
#include "src/toml.h"

namespace app {
namespace {

constexpr std::array drivers{&graph::file_driver, &graph::memory_driver, &formats::raw_driver};

// One string for each part: "base disk | export other", nodes first.
std::vector<std::string> parts_of(std::string_view text, std::size_t copies_max = 4) {
  const auto root = parse_toml(text, "a.toml");
  EXPECT_TRUE(root) << root.error().message;
  const auto config = read_config(*root, drivers);
  EXPECT_TRUE(config) << config.error().message;
  std::vector<std::string> result;
  for (const Part& part : partition(*config, drivers, copies_max)) {
    std::string words;
    for (const NodeConfig* node : part.nodes) words += node->name + " ";
    words += "|";
    for (const ExportConfig* item : part.exports) words += " " + item->name;
    result.push_back(std::move(words));
  }
  return result;
}

using Parts = std::vector<std::string>;

TEST(Partition, PutsWhatIsConnectedTogether) {
  EXPECT_EQ(parts_of("[nodes.a]\ndriver='memory'\n[nodes.b]\ndriver='memory'\n"
                     "[nodes.top]\ndriver='raw'\nfile='a'\n"
                     "[exports.x]\nnode='top'\n[exports.y]\nnode='a'\n[exports.z]\nnode='b'\n"),
            (Parts{"a top | x y", "b | z"}));
}

TEST(Partition, OpensWhatNobodyServes) {
  EXPECT_EQ(parts_of("[nodes.a]\ndriver='memory'\n[nodes.b]\ndriver='file'\nfilename='f'\n"
                     "read-only=true\n[exports.x]\nnode='a'\n"),
            (Parts{"a | x", "b |"}));
}

constexpr std::string_view shared_base =
    "[nodes.file]\ndriver='file'\nfilename='f'\nread-only=true\n"
    "[nodes.base]\ndriver='raw'\nfile='file'\nread-only=true\n"
    "[exports.a]\nnode='base'\n[exports.b]\nnode='base'\n[exports.c]\nnode='base'\n";

TEST(Partition, OpensWhatIsReadOnlyAgainForEachPart) {
  EXPECT_EQ(parts_of(shared_base), (Parts{"file base | a", "file base | b", "file base | c"}));
}

TEST(Partition, MakesNoMoreCopiesThanThereAreWorkers) {
  EXPECT_EQ(parts_of(shared_base, 2), (Parts{"file base | a c", "file base | b"}));
  EXPECT_EQ(parts_of(shared_base, 1), (Parts{"file base | a b c"}));
}

TEST(Partition, KeepsOneInstanceOfWhatCouldBeWritten) {
  EXPECT_EQ(parts_of("[nodes.file]\ndriver='file'\nfilename='f'\n"
                     "[nodes.base]\ndriver='raw'\nfile='file'\nread-only=true\n"
                     "[exports.a]\nnode='base'\n[exports.b]\nnode='base'\n"),
            (Parts{"file base | a b"}));
  EXPECT_EQ(parts_of("[nodes.base]\ndriver='raw'\nread-only=true\n"
                     "file={driver='file',filename='f',read-only=false}\n"
                     "[exports.a]\nnode='base'\n[exports.b]\nnode='base'\n"),
            (Parts{"base | a b"}));
}

}  // namespace
}  // namespace app
