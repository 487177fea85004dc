#include "src/control/json_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "tests/support/seed.h"

namespace app::control {
namespace {

using testing::ElementsAre;
using testing::StartsWith;

// What the reader finds in the pieces, as text; a mistake as what is said of it.
std::vector<std::string> found_in(const std::vector<std::string>& pieces,
                                  ReaderLimits limits = {}) {
  JsonReader reader(limits);
  std::vector<std::string> found;
  for (const std::string& piece : pieces) {
    std::string_view rest = piece;
    while (auto value = reader.take(rest)) {
      found.push_back(*value ? to_text(**value) : value->error().message);
    }
    EXPECT_TRUE(rest.empty());
  }
  return found;
}

const std::string stream =
    "{\"a\": [1, {\"b\": \"}]\\\"{[\"}]} \r\n{'it\\'s': 'a \"b\" \\\\'}\"s\" 12 null[]{}\n"
    "[\"\xc3\xa9\xe2\x82\xac\", -1.5e3]true ";
const std::vector<std::string> values{"{\"a\": [1, {\"b\": \"}]\\\"{[\"}]}",
                                      "{\"it's\": \"a \\\"b\\\" \\\\\"}",
                                      "\"s\"",
                                      "12",
                                      "null",
                                      "[]",
                                      "{}",
                                      "[\"\xc3\xa9\xe2\x82\xac\", -1500.0]",
                                      "true"};

TEST(JsonReader, FindsTheSameValuesWhereverTheStreamIsCut) {
  EXPECT_EQ(found_in({stream}), values);
  for (std::size_t first = 0; first <= stream.size(); ++first) {
    for (std::size_t second = first; second <= stream.size(); second += 7) {
      ASSERT_EQ(found_in({stream.substr(0, first), stream.substr(first, second - first),
                          stream.substr(second)}),
                values)
          << first << " " << second;
    }
  }
  std::vector<std::string> bytes;
  for (const char byte : stream) bytes.emplace_back(1, byte);
  EXPECT_EQ(found_in(bytes), values);
}

TEST(JsonReader, GoesOnAfterAMistake) {
  EXPECT_THAT(found_in({"{\"a\" 3}[1]"}),
              ElementsAre(StartsWith("JSON parse error, syntax error"), "[1]"));
  EXPECT_THAT(found_in({"nul 1 "}), ElementsAre(StartsWith("JSON parse error, "), "1"));
  EXPECT_THAT(
      found_in({"}],:[1]"}),
      ElementsAre("JSON parse error, expecting value", "JSON parse error, expecting value",
                  "JSON parse error, expecting value", "JSON parse error, expecting value", "[1]"));
  EXPECT_THAT(found_in({"{][1]"}), ElementsAre(StartsWith("JSON parse error, "), "[1]"));
  EXPECT_THAT(found_in({"{\"a\":1,\"a\":2}7 "}),
              ElementsAre("JSON parse error, duplicate key", "7"));
}

TEST(JsonReader, BeginsAnewAfterALineThatMakesNoSense) {
  EXPECT_THAT(found_in({"{\"a\": \"b\n{\"c\": 1}"}),
              ElementsAre("JSON parse error, stray '\\x0a'", "{\"c\": 1}"));
  EXPECT_THAT(found_in({"[\x01 1, 2]}}}]]\n[3]"}),
              ElementsAre("JSON parse error, stray '\\x01'", "[3]"));
  // a client sends 0xff when it does not know what was sent before it
  EXPECT_THAT(found_in({"{\"a\": \"b\xff[1]"}),
              ElementsAre("JSON parse error, stray '\\xff'", "[1]"));
  EXPECT_THAT(found_in({"[\x02 1, 2\xff[3]"}),
              ElementsAre("JSON parse error, stray '\\x02'", "[3]"));
}

TEST(JsonReader, TakesOnlyUtf8) {
  EXPECT_THAT(found_in({"\"\xc3\"[1]"}), ElementsAre(StartsWith("JSON parse error, "), "[1]"));
  EXPECT_THAT(found_in({"[\"\\ud800\"]2 "}), ElementsAre(StartsWith("JSON parse error, "), "2"));
}

TEST(JsonReader, TakesLongStrings) {
  const std::string text = "\"" + std::string(1 * MiB, 'x') + "\"";
  std::vector<std::string> pieces;
  for (std::size_t at = 0; at < text.size(); at += 4000) pieces.push_back(text.substr(at, 4000));
  EXPECT_THAT(found_in(pieces), ElementsAre(text));
}

// Nobody knows where the next value begins.
TEST(JsonReader, GivesUpOnWhatIsTooLongOrTooDeep) {
  const auto code_of = [](const std::string& bytes, ReaderLimits limits = {}) {
    JsonReader reader(limits);
    std::string_view rest = bytes;
    const auto value = reader.take(rest);
    return value && !*value ? std::optional(value->error().code) : std::nullopt;
  };
  ReaderLimits small;
  small.length = 10;
  small.value.nesting = 3;
  EXPECT_EQ(code_of("\"123456789", small), std::nullopt);
  EXPECT_EQ(code_of("\"1234567890", small), Errc::no_space);
  EXPECT_EQ(code_of("12345678901", small), Errc::no_space);
  EXPECT_EQ(code_of("[[[", small), std::nullopt);
  EXPECT_EQ(code_of("[[[[", small), Errc::no_space);
  EXPECT_EQ(code_of(std::string(5 * MiB, '[')), Errc::no_space);
  EXPECT_EQ(code_of("[" + std::string(5 * MiB, ' ')), Errc::no_space);
  EXPECT_EQ(code_of("\"" + std::string(5 * MiB, 'x')), Errc::no_space);
  // that one has an end
  std::string many = "[0";
  for (int i = 0; i < 200'000; ++i) many += ",0";
  EXPECT_EQ(code_of(many + "]"), Errc::invalid_argument);
}

// Whatever it is, the reader ends, holds no more than its limit, and understands what follows.
TEST(JsonReader, SurvivesGarbage) {
  const std::uint64_t first = test::seed();
  constexpr std::string_view bytes = "{}[]\"'\\:, \n\t01e-.truefalsn\xc3\xa9\xff\x01u";
  for (std::uint64_t seed = first; seed < first + 2000 && !HasFailure(); ++seed) {
    SCOPED_TRACE(test::repeat_with(seed));
    std::mt19937_64 random(seed);
    std::string garbage;
    for (std::uint64_t n = random() % 200; n > 0; --n) garbage += bytes[random() % bytes.size()];
    const auto found = found_in({garbage, "\xff\n\xff", "[42]"});
    ASSERT_FALSE(found.empty());
    EXPECT_EQ(found.back(), "[42]") << garbage;
  }
}

}  // namespace
}  // namespace app::control
