#include "graph/base/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

namespace {

using testing::HasSubstr;

OptionValue at(std::uint32_t line, OptionValue value) {
  value.position = Position{"disk.toml", line, 3};
  return value;
}
OptionValue text(std::string value) { return {std::move(value), {}}; }
OptionValue number(std::int64_t value) { return {value, {}}; }

constexpr std::array rule_specs{
    OptionSpec{"event", Kind::text, "start", ""},
    OptionSpec{"count", Kind::integer, "7", ""},
};
constexpr OptionTable rule_keys{rule_specs};
constexpr std::array specs{
    OptionSpec{"size", Kind::bytes, "1G", ""},
    OptionSpec{"wait", Kind::duration, "10s", ""},
    OptionSpec{"name", Kind::text, "nobody", ""},
    OptionSpec{"file", Kind::path, "", ""},
    OptionSpec{"on", Kind::boolean, "true", ""},
    OptionSpec{"count", Kind::integer, "-3", ""},
    OptionSpec{"mode", Kind::choice, "fast", "", "fast|slow"},
    OptionSpec{"child", Kind::node, "", ""},
    OptionSpec{"list", Kind::list, "", ""},
    OptionSpec{"words", Kind::words, "", "", "red|green"},
    OptionSpec{"rules", Kind::tables, "", "", {}, &rule_keys},
    OptionSpec{"cache.direct", Kind::boolean, "false", ""},
    OptionSpec{"cache.size", Kind::bytes, "0", ""},
};

std::string refusal(std::string key, OptionValue value) {
  Options options;
  options.set(std::move(key), at(7, std::move(value)));
  const auto checked = check_options(options, specs);
  if (checked) return "(good)";
  EXPECT_EQ(checked.error().code, Errc::invalid_argument);
  return checked.error().message;
}

TEST(Options, SizesArePowersOf1024) {
  EXPECT_EQ(parse_bytes("0"), 0U);
  EXPECT_EQ(parse_bytes("512"), 512U);
  for (const auto* kib : {"64K", "64k", "64KB", "64KiB"}) EXPECT_EQ(parse_bytes(kib), 64 * KiB);
  EXPECT_EQ(parse_bytes("7E"), 7 * GiB * GiB);
  EXPECT_EQ(parse_bytes("9223372036854775807"), (std::uint64_t{1} << 63) - 1);
}

TEST(Options, SizesThatAreNoneAreRefused) {
  for (const auto* bad : {"", "K", "-1", "+1", " 1", "1 K", "1.5G", "64Q", "64KX", "64KiBs", "0x10",
                          "8E", "9223372036854775808", "99999999999999999999"}) {
    EXPECT_FALSE(parse_bytes(bad)) << bad;
  }
}

TEST(Options, DurationsNeedAUnit) {
  EXPECT_EQ(parse_duration_ns("10s"), 10'000'000'000U);
  EXPECT_EQ(parse_duration_ns("500ms"), 500'000'000U);
  EXPECT_EQ(parse_duration_ns("2min"), 120'000'000'000U);
  for (const auto* bad : {"", "10", "s", "-1s", "10m", "10 s", "99999999999h"}) {
    EXPECT_FALSE(parse_duration_ns(bad)) << bad;
  }
}

TEST(Options, SizesAreWrittenAsTheyAreTyped) {
  for (const auto* same : {"0", "1000", "64K", "1G", "1025K", "3E"}) {
    EXPECT_EQ(format_bytes(parse_bytes(same).value()), same);
  }
}

TEST(Options, AnUnknownKeyIsRefusedAtItsPlaceWithTheNearestKnownOne) {
  EXPECT_EQ(refusal("siez", number(1)), "disk.toml:7:3: unknown key 'siez', did you mean 'size'?");
  EXPECT_EQ(refusal("unrelated", number(1)), "disk.toml:7:3: unknown key 'unrelated'");
}

TEST(Options, AnUnknownKeyOfANestedTableIsNamedInFull) {
  auto cache = std::make_shared<Options>();
  cache->set("dierct", at(8, {true, {}}));
  EXPECT_EQ(refusal("cache", {cache, {}}),
            "disk.toml:8:3: unknown key 'cache.dierct', did you mean 'cache.direct'?");
  EXPECT_EQ(refusal("cahce", {cache, {}}),
            "disk.toml:7:3: unknown key 'cahce', did you mean 'cache'?");
}

TEST(Options, AValueOfTheWrongKindIsRefusedAtItsPlace) {
  EXPECT_EQ(refusal("size", {true, {}}),
            "disk.toml:7:3: 'size': expected a size such as 4096 or \"64K\", not true or false");
  EXPECT_THAT(refusal("size", number(-1)), HasSubstr("must not be negative"));
  EXPECT_THAT(refusal("size", text("1.5G")), HasSubstr("'size'"));
  EXPECT_THAT(refusal("wait", text("soon")), HasSubstr("'wait'"));
  EXPECT_THAT(refusal("wait", number(-1)), HasSubstr("'wait'"));
  EXPECT_THAT(refusal("name", number(1)), HasSubstr("expected a string, not an integer"));
  EXPECT_THAT(refusal("file", text("")), HasSubstr("the file name is empty"));
  EXPECT_EQ(refusal("mode", text("medium")),
            "disk.toml:7:3: 'mode': 'medium' is none of fast, slow");
  EXPECT_THAT(refusal("child", number(1)), HasSubstr("the name of a node"));
  EXPECT_THAT(refusal("on", text("yes")), HasSubstr("expected true or false, not a string"));
  EXPECT_EQ(refusal("count", number(-1)), "(good)");
}

OptionValue rule(std::string key, OptionValue value) {
  auto table = std::make_shared<Options>(Position{"disk.toml", 8, 1});
  table->set(std::move(key), at(9, std::move(value)));
  return at(8, {table, {}});
}

TEST(Options, AListOfTablesIsCheckedTableByTable) {
  EXPECT_EQ(refusal("rules", {OptionList{rule("event", text("a")), rule("count", number(1))}, {}}),
            "(good)");
  EXPECT_EQ(refusal("rules", {OptionList{rule("event", text("a")), rule("cuont", number(1))}, {}}),
            "disk.toml:9:3: unknown key 'cuont', did you mean 'count'?");
  EXPECT_EQ(refusal("rules", {OptionList{rule("event", number(1))}, {}}),
            "disk.toml:9:3: 'event': expected a string, not an integer");
  EXPECT_EQ(refusal("rules", {OptionList{at(9, number(1))}, {}}),
            "disk.toml:9:3: 'rules': expected a list of tables, and this is an integer");
  EXPECT_EQ(refusal("rules", rule("event", text("a"))),
            "disk.toml:7:3: 'rules': expected a list of tables, not a table");
}

TEST(Options, AListOfWordsHoldsOnlyThoseThatAreKnown) {
  EXPECT_EQ(refusal("words", {OptionList{at(9, text("red")), at(9, text("green"))}, {}}), "(good)");
  EXPECT_EQ(refusal("words", {OptionList{at(9, text("red")), at(9, text("blue"))}, {}}),
            "disk.toml:9:3: 'words': 'blue' is none of red, green");
  EXPECT_EQ(refusal("words", {OptionList{at(9, number(1))}, {}}),
            "disk.toml:9:3: 'words': expected a list of strings, and this is an integer");
  EXPECT_THAT(refusal("words", text("red")), HasSubstr("expected a list of strings"));
}

TEST(Options, ListsAreRead) {
  Options options;
  EXPECT_TRUE(OptionReader(options, specs).tables("rules").empty());
  EXPECT_TRUE(OptionReader(options, specs).words("words").empty());
  options.set("rules", {OptionList{rule("event", text("a")), rule("count", number(1))}, {}});
  options.set("words", {OptionList{text("red"), text("green")}, {}});
  const OptionReader reader(options, specs);

  const std::vector<OptionReader> rules = reader.tables("rules");
  ASSERT_EQ(rules.size(), 2U);
  EXPECT_EQ(rules[0].text("event"), "a");
  EXPECT_EQ(rules[0].integer("count"), 7);
  EXPECT_EQ(rules[1].text("event"), "start");
  EXPECT_EQ(rules[1].integer("count"), 1);
  EXPECT_EQ(rules[1].position("event").line, 8U);
  EXPECT_EQ(reader.words("words"), (std::vector<std::string>{"red", "green"}));
}

TEST(Options, TheDefaultStandsWhereAKeyIsAbsent) {
  const Options empty;
  const OptionReader reader(empty, specs);
  EXPECT_EQ(reader.bytes("size"), 1 * GiB);
  EXPECT_EQ(reader.duration_ns("wait"), 10'000'000'000U);
  EXPECT_EQ(reader.text("name"), "nobody");
  EXPECT_TRUE(reader.boolean("on"));
  EXPECT_EQ(reader.integer("count"), -3);
  EXPECT_FALSE(reader.has("size"));
}

TEST(Options, WhatWasTypedIsRead) {
  Options options(Position{"disk.toml", 1, 1});
  options.set_directory("/images");
  options.set("size", text("4K"));
  options.set("wait", number(2));
  options.set("file", text("a.raw"));
  auto cache = std::make_shared<Options>();
  cache->set("direct", at(9, {true, {}}));
  options.set("cache", {cache, {}});
  const OptionReader reader(options, specs);

  EXPECT_EQ(reader.bytes("size"), 4 * KiB);
  EXPECT_EQ(reader.duration_ns("wait"), 2'000'000'000U);
  EXPECT_EQ(reader.path("file"), "/images/a.raw");
  EXPECT_TRUE(reader.boolean("cache.direct"));
  EXPECT_EQ(reader.position("cache.direct").line, 9U);
  EXPECT_EQ(reader.position("name").line, 1U);
  options.set("file", text("/elsewhere/b.raw"));
  EXPECT_EQ(reader.path("file"), "/elsewhere/b.raw");
}

TEST(Options, AKeySetTwiceHasItsLastValueAndItsFirstPlace) {
  Options options;
  options.set("a", number(1));
  options.set("b", number(2));
  options.set("a", number(3));
  ASSERT_EQ(options.entries().size(), 2U);
  EXPECT_EQ(options.entries()[0].first, "a");
  EXPECT_EQ(std::get<std::int64_t>(options.find("a")->data), 3);
}

TEST(Options, TheNearestWordIsNoneWhenAllAreFar) {
  const std::vector<std::string> words{"size", "file"};
  EXPECT_EQ(nearest("flie", words), "file");
  EXPECT_EQ(nearest("zzzz", words), std::nullopt);
  EXPECT_EQ(nearest("", words), std::nullopt);
}

}  // namespace
