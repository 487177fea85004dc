#include "src/picture.h"

#include <gtest/gtest.h>

#include "tests/src/small_site.h"

namespace app {
namespace {

TEST(Dot, ShowsNodesEdgesRightsAndExports) {
  SmallSite small(
      "[nodes.m]\ndriver = 'memory'\nsize = '64K'\n[nodes.d]\ndriver = 'raw'\nfile = 'm'\n"
      "[exports.e]\nnode = 'd'\nwritable = true\n");
  ASSERT_EQ(small.open(), "");

  const std::string dot = to_dot(small.site.cells());

  EXPECT_NE(dot.find("digraph gantry {\n"), std::string::npos);
  EXPECT_NE(dot.find("  \"export e\" [shape=cds, label=\"export 'e'\\n64K, writable\"];\n"),
            std::string::npos)
      << dot;
  EXPECT_NE(
      dot.find("  \"export e\" -> \"node d\" [label=\"view\\ntakes consistent read, write; shares "
               "consistent read, write, write unchanged, resize\"];\n"),
      std::string::npos)
      << dot;
  EXPECT_NE(dot.find("  \"node d\" -> \"node m\" [label=\"file (window)\\n"), std::string::npos)
      << dot;
  EXPECT_EQ(small.close(), "");
}

TEST(Dot, EscapesWhatAnExportIsCalled) {
  SmallSite small("[nodes.m]\ndriver = 'memory'\n[exports.\"a\\\"b\\\\c\\nd\"]\nnode = 'm'\n");
  ASSERT_EQ(small.open(), "");

  const std::string dot = to_dot(small.site.cells());

  EXPECT_NE(dot.find("\"export a\\\"b\\\\c\\\\x0ad\" -> \"node m\""), std::string::npos) << dot;
  EXPECT_EQ(small.close(), "");
}

TEST(Text, ShowsNodesParentsFirst) {
  SmallSite small(
      "[nodes.m]\ndriver = 'memory'\nsize = '64K'\n[nodes.d]\ndriver = 'raw'\nfile = 'm'\n"
      "[exports.e]\nnode = 'd'\noffset = 512\n");
  ASSERT_EQ(small.open(), "");

  const std::string text = to_text(small.site.cells());

  const std::string all = "consistent read, write, write unchanged, resize";
  EXPECT_EQ(text,
            "nodes:\n  d: raw, 64K\n    file -> m (window): takes consistent read; shares " + all +
                "\n  m: memory 64K, 64K\nexports:\n  'e' -> d: 65024 from byte 512, read-only\n"
                "    takes consistent read; shares " +
                all + "\n");
  EXPECT_EQ(small.close(), "");
}

}  // namespace
}  // namespace app
