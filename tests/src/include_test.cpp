#include "src/include.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/support/real_world.h"

namespace app {
namespace {

// Files in a folder of their own, which is the current one, so that messages are short.
class Files : public testing::Test {
 protected:
  void SetUp() override {
    before = std::filesystem::current_path();
    std::filesystem::current_path(temporary.folder());
  }
  void TearDown() override { std::filesystem::current_path(before); }

  static void file(const std::filesystem::path& path, const std::string& text) {
    if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  static std::string complaint(const std::string& path = "a.toml") {
    const auto tree = load_with_includes(path);
    return tree ? "" : tree.error().message;
  }
  // The keys in `section` of a.toml and what it includes.
  static std::string keys(const std::string& section) {
    const auto tree = load_with_includes("a.toml");
    if (!tree) return tree.error().message;
    std::string all;
    for (const auto& [key, value] : tree->find(section)->table()->entries()) all += key + " ";
    return all;
  }

  test::TempDir temporary;
  std::filesystem::path before;
};

TEST_F(Files, AreMergedInTheOrderOfTheirNames) {
  file("a.toml", "include = ['d/*.toml', 'last.toml']\n[nodes.own]\n");
  file("d/2.toml", "[nodes.two]\n");
  file("d/10.toml", "[nodes.ten]\n");
  file("d/.hidden.toml", "[nodes.hidden]\n");
  file("d/1.toml~", "[nodes.backup]\n");
  file("last.toml", "[nodes.last]\n");

  EXPECT_EQ(keys("nodes"), "own ten two last ");
}

TEST_F(Files, StartFromTheFolderOfTheFileThatNamesThem) {
  file("a.toml", "include = 'd/b.toml'\n");
  file("d/b.toml", "include = ['e/*.toml']\n[nodes.b]\nfilename = 'b.raw'\n");
  file("d/e/c.toml", "[nodes.c]\nfilename = 'c.raw'\n");

  const auto tree = load_with_includes("a.toml");

  ASSERT_TRUE(tree) << tree.error().message;
  EXPECT_EQ(tree->find("nodes.b")->table()->directory(), "d");
  EXPECT_EQ(tree->find("nodes.c")->table()->directory(), "d/e");
  EXPECT_EQ(tree->find("include"), nullptr);
}

TEST_F(Files, AreFoundBelowAFolderWhoseNameLooksLikeAPattern) {
  file("[x]*/a.toml", "include = ['*.d/*.toml']\n");
  file("[x]*/b.d/b.toml", "[nodes.b]\n");

  const auto tree = load_with_includes("[x]*/a.toml");

  ASSERT_TRUE(tree) << tree.error().message;
  EXPECT_NE(tree->find("nodes.b"), nullptr);
}

TEST_F(Files, MayBeNoneForAPatternButNotForAName) {
  file("a.toml", "include = ['d/*.toml']\n");
  EXPECT_EQ(complaint(), "");
  file("a.toml", "include = [\n  'b.toml']\n");
  EXPECT_EQ(complaint(), "a.toml:2:3: 'include': there is no file 'b.toml'");
}

TEST_F(Files, DefineANameOnce) {
  file("a.toml", "include = ['b.toml', 'c.toml']\n[server]\nmax-connections = 1\n");
  file("b.toml", "\n[nodes.disk]\n");
  file("c.toml", "[nodes.disk]\n");
  EXPECT_EQ(complaint(), "c.toml:1:8: 'nodes.disk' is defined twice, first at b.toml:2:8");

  file("c.toml", "[server]\nmax-connections = 1\n");
  EXPECT_EQ(complaint(),
            "c.toml:2:1: 'server.max-connections' is defined twice, first at a.toml:3:1");

  file("c.toml", "[server]\nlog-level = 'debug'\n");
  EXPECT_EQ(keys("server"), "max-connections log-level ");

  file("c.toml", "server = 3\n");
  EXPECT_EQ(complaint(), "c.toml:1:1: 'server' is defined twice, first at a.toml:2:2");
}

TEST_F(Files, DoNotIncludeThemselves) {
  file("a.toml", "include = ['d/b.toml']\n");
  file("d/b.toml", "include = ['../a.toml']\n");
  EXPECT_EQ(complaint(),
            "d/b.toml:1:12: 'include': the files form a cycle: a.toml -> d/b.toml -> d/../a.toml");
  file("a.toml", "include = ['*.toml']\n");
  EXPECT_EQ(complaint(), "a.toml:1:12: 'include': the files form a cycle: a.toml -> a.toml");
}

TEST_F(Files, AreIncludedOnce) {
  file("a.toml", "include = ['d/b.toml', 'd/*.toml']\n");
  file("d/b.toml", "[nodes.b]\n");

  EXPECT_EQ(complaint(),
            "a.toml:1:24: 'include': d/b.toml is included twice, first at a.toml:1:12");
}

TEST_F(Files, AreLimitedInNumberAndDepth) {
  file("a.toml", "include = ['0.toml']\n");
  for (int i = 0; i < 20; ++i) {
    file(std::to_string(i) + ".toml", "include = ['" + std::to_string(i + 1) + ".toml']\n");
  }
  EXPECT_EQ(complaint(), "14.toml:1:12: 'include': more than 16 files include each other");

  file("a.toml", "include = ['d/*']\n");
  for (int i = 0; i < 1000; ++i) file("d/" + std::to_string(i), "");
  EXPECT_EQ(complaint(), "a.toml:1:12: 'include': more than 1000 files");
}

TEST_F(Files, KeepThePositionOfTheirMistakes) {
  file("a.toml", "include = ['d/*.toml']\n");
  file("d/b.toml", "[nodes.b]\n= 7\n");
  EXPECT_TRUE(complaint().starts_with("d/b.toml:2:1: ")) << complaint();

  std::filesystem::remove("d/b.toml");
  std::filesystem::create_directory("d/b.toml");
  EXPECT_EQ(complaint(), "a.toml:1:12: d/b.toml: Is a directory");
}

TEST_F(Files, AreNamedByStrings) {
  const auto said = [](const std::string& value) {
    file("a.toml", "include = " + value + "\n");
    return complaint();
  };
  EXPECT_EQ(said("7"),
            "a.toml:1:1: 'include': expected a file name or a list of them, not an integer");
  EXPECT_EQ(said("[['b']]"),
            "a.toml:1:12: 'include': expected a file name or a list of them, not a list");
  EXPECT_EQ(said("{ file = 'b' }"),
            "a.toml:1:1: 'include': expected a file name or a list of them, not a table");
  EXPECT_EQ(said("''"), "a.toml:1:1: 'include': '' is no file name");
  EXPECT_EQ(said("\"b\\u0000\""), "a.toml:1:1: 'include': 'b\\x00' is no file name");
}

}  // namespace
}  // namespace app
