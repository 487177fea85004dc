#include "graph/base/json.h"

#include <gtest/gtest.h>

#include "tests/support/graph_fixture.h"

namespace {

std::string complaint(std::string_view text, JsonLimits limits = {}) {
  const auto value = parse_json(text, limits);
  return value ? "" : value.error().message;
}

TEST(Json, ComesBackAsItWas) {
  for (const char* text :
       {"null", "true", "[1, -2, 3.5, 18446744073709551615, -9223372036854775808]",
        R"({"b": {}, "a": [[], "x\ny\"\\", false]})", R"("é €")", "\"\""}) {
    const auto value = parse_json(text);
    ASSERT_TRUE(value) << value.error().message;
    EXPECT_EQ(to_text(*value), text);
    EXPECT_EQ(*parse_json(to_text(*value, JsonStyle::compact)), *value);
  }
  EXPECT_EQ(to_text(*parse_json("{\"a\" :[1,\n2]}"), JsonStyle::compact), R"({"a":[1,2]})");
}

TEST(Json, IsBuiltPieceByPiece) {
  Json value;
  value.set("text", "t");
  value.set("number", std::uint64_t{7});
  value.set("large", ~std::uint64_t{0});
  value.set("truth", true);
  JsonArray list;
  list.emplace_back();
  value.set("list", std::move(list));

  EXPECT_EQ(
      to_text(value),
      R"({"text": "t", "number": 7, "large": 18446744073709551615, "truth": true, "list": [null]})");
  EXPECT_EQ(*value.find("number")->integer(), 7);
  EXPECT_EQ(value.find("number")->string(), nullptr);
  EXPECT_EQ(value.find("none"), nullptr);
  EXPECT_EQ(Json(7).find("none"), nullptr);
}

TEST(Json, IsUtf8) {
  EXPECT_EQ(*parse_json(R"("\u00e9\ud83d\ude00")")->string(), "é😀");
  EXPECT_NE(complaint("\"\xff\""), "");
  EXPECT_NE(complaint("\"\xc3\""), "");
  EXPECT_NE(complaint("\"\xed\xa0\x80\""), "");
  EXPECT_NE(complaint(R"("\ud800")"), "");
  EXPECT_EQ(to_text("\xff!"), "\"\xef\xbf\xbd!\"");
}

TEST(Json, ThatIsNoneIsRefused) {
  for (const char* text : {"", "{", "[1,]", "{\"a\" 1}", "{1: 2}", "nul", "01", "[1] 2", "'a'",
                           "\"a\nb\"", "NaN", "1e999", "{\"a\": 1,}"}) {
    EXPECT_NE(complaint(text), "") << text;
  }
  EXPECT_EQ(complaint(R"({"a": 1, "b": 2, "a": 1})"), "duplicate key");
  EXPECT_EQ(complaint("[1"),
            "syntax error while parsing array - unexpected end of input; expected ']'");
}

TEST(Json, HasLimits) {
  JsonLimits limits;
  limits.nesting = 3;
  limits.elements = 4;
  EXPECT_EQ(complaint("[[[]]]", limits), "");
  EXPECT_EQ(complaint("[[[[]]]]", limits), "nested too deep");
  EXPECT_EQ(complaint("[1, 2, 3, 4]", limits), "");
  EXPECT_EQ(complaint("[1, 2, 3, 4, 5]", limits), "too many elements");
  EXPECT_EQ(complaint("[[1, 2], [3]]", limits), "too many elements");
  EXPECT_EQ(complaint(std::string(1'000'000, '[')), "nested too deep");
}

}  // namespace
