#include "graph/base/log.h"

#include <gtest/gtest.h>

namespace {

TEST(Utf8, IsWhatTheStandardCallsWellFormed) {
  for (const auto* good : {"", "a", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x92\xbe",
                           "\xf4\x8f\xbf\xbf", "\xed\x9f\xbf", "\xee\x80\x80", "\xc2\x80"}) {
    EXPECT_TRUE(is_utf8(good)) << good;
  }
}

TEST(Utf8, IsNotOverlongNorASurrogateNorCutNorTooLarge) {
  for (const auto* bad :
       {"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xf0\x80\x80\x80",
        "\xf0\x8f\xbf\xbf", "\xed\xa0\x80", "\xed\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80",
        "\xff", "\xc3", "\xe2\x82", "\xf0\x9f\x92", "\xc3(", "a\xe2(\xa1"}) {
    EXPECT_FALSE(is_utf8(bad));
  }
}

TEST(Printable, KeepsTextAndEscapesWhatATerminalWouldObey) {
  EXPECT_EQ(printable("disk \xc3\xa4"), "disk \xc3\xa4");
  EXPECT_EQ(printable("a\nb\x1b[31m\x7f"), "a\\x0ab\\x1b[31m\\x7f");
  EXPECT_EQ(printable(std::string_view("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(printable("\xff\xc3"), "\\xff\\xc3");
  EXPECT_EQ(printable("\xc2\x9b"), "\\xc2\\x9b");  // a C1 control: CSI
}

TEST(Printable, CutsWhatIsTooLongBetweenCharacters) {
  EXPECT_EQ(printable("abcdef", 6), "abcdef");
  EXPECT_EQ(printable("abcdef", 5), "abcde...");
  EXPECT_EQ(printable("ab\xc3\xa4", 3), "ab...");
  EXPECT_EQ(printable("ab\n", 5), "ab...");
}

}  // namespace
