#include "src/toml.h"

#include <gtest/gtest.h>

namespace app {
namespace {

TEST(Toml, GivesEachKeyItsPlace) {
  const auto root =
      parse_toml("[nodes.disk]\n  driver = 'raw'\n  cache.direct = true\n", "x/a.toml");

  ASSERT_TRUE(root) << root.error().message;
  const Options& disk = *root->find("nodes.disk")->table();
  EXPECT_EQ(disk.position().prefix(), "x/a.toml:1:1: ");
  EXPECT_EQ(disk.find("driver")->position.prefix(), "x/a.toml:2:3: ");
  EXPECT_EQ(disk.find("cache.direct")->position.prefix(), "x/a.toml:3:9: ");
}

TEST(Toml, GivesEachElementOfAListItsPlace) {
  const auto root = parse_toml("listen = ['a',\n  'b']\n", "a.toml");

  ASSERT_TRUE(root) << root.error().message;
  const auto& list = std::get<OptionList>(root->find("listen")->data);
  EXPECT_EQ(list[0].position.prefix(), "a.toml:1:11: ");
  EXPECT_EQ(list[1].position.prefix(), "a.toml:2:3: ");
}

TEST(Toml, KeepsTheOrderInWhichKeysWereWritten) {
  const auto root = parse_toml("[z]\n[a]\n[m]\n", "a.toml");

  ASSERT_TRUE(root);
  std::string order;
  for (const auto& [key, value] : root->entries()) order += key;
  EXPECT_EQ(order, "zam");
}

TEST(Toml, MakesRelativeNamesStartFromTheFilesFolder) {
  const auto root = parse_toml("[a.b]\n", "some/folder/a.toml");
  const auto here = parse_toml("[a.b]\n", "a.toml");

  ASSERT_TRUE(root && here);
  EXPECT_EQ(root->find("a.b")->table()->directory(), "some/folder");
  EXPECT_EQ(here->find("a.b")->table()->directory(), "");
}

TEST(Toml, SaysWhereASyntaxErrorStands) {
  const auto root = parse_toml("[server]\nlisten = \n", "bad.toml");

  ASSERT_FALSE(root);
  EXPECT_TRUE(root.error().message.starts_with("bad.toml:2:")) << root.error().message;
}

TEST(Toml, SaysWhereATableIsDefinedAgain) {
  const auto root = parse_toml("[nodes.a]\n[nodes.b]\n[nodes.a]\n", "twice.toml");

  ASSERT_FALSE(root);
  EXPECT_TRUE(root.error().message.starts_with("twice.toml:3:")) << root.error().message;
}

TEST(Toml, RefusesDates) {
  const auto root = parse_toml("when = 2020-01-01\n", "a.toml");

  ASSERT_FALSE(root);
  EXPECT_EQ(root.error().message, "a.toml:1:1: dates and times mean nothing here");
}

TEST(Toml, NamesAFileThatIsNotThere) {
  const auto root = load_toml("/nowhere/a.toml");

  ASSERT_FALSE(root);
  EXPECT_EQ(root.error().message, "/nowhere/a.toml: No such file or directory");
}

}  // namespace
}  // namespace app
