#include "graph/base/log.h"

#include <gtest/gtest.h>

#include "graph/base/log_json.h"

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

constexpr std::chrono::system_clock::time_point moment(std::chrono::milliseconds(1'234));

TEST(JsonLine, HasTheFieldsThatApply) {
  const LogFields about{
      .connection = "127.0.0.1:1", .export_name = "", .request = "write 512 at 0"};

  EXPECT_EQ(json_line(moment, LogLevel::info, "hello", {}),
            R"({"time":"1970-01-01T00:00:01.234Z","level":"info","message":"hello"})");
  EXPECT_EQ(json_line(moment, LogLevel::error, "m", about),
            R"({"time":"1970-01-01T00:00:01.234Z","level":"error","message":"m",)"
            R"("connection":"127.0.0.1:1","export":"","request":"write 512 at 0"})");
}

TEST(JsonLine, StaysOneLineOfUtf8WhateverComes) {
  const std::string line =
      json_line(moment, LogLevel::warning, std::string_view("\"\\\n\x00\x1b \xff\xc3\xa4", 9), {});

  EXPECT_TRUE(line.ends_with(R"("message":"\"\\\n\u0000\u001b )"
                             "\xef\xbf\xbd\xc3\xa4\"}"))
      << line;
  EXPECT_TRUE(is_utf8(line));
}

TEST(StderrLog, ChangesItsLevelWhileItRuns) {
  const auto log = stderr_log(LogLevel::warning);

  testing::internal::CaptureStderr();
  log->info("first");
  log->set_level(LogLevel::debug);
  log->debug("second");
  log->set_level(LogLevel::error);
  log->warning("third");
  const std::string said = testing::internal::GetCapturedStderr();

  EXPECT_TRUE(said.ends_with(" debug: second\n")) << said;
  EXPECT_EQ(said.find("first"), std::string::npos);
  EXPECT_EQ(said.find("third"), std::string::npos);
}

TEST(StderrLog, WritesLinesOfJson) {
  const auto log = stderr_log(LogLevel::info, LogFormat::json);

  testing::internal::CaptureStderr();
  log->info("a {} b\n", {.connection = "c"});
  const std::string said = testing::internal::GetCapturedStderr();

  EXPECT_TRUE(said.starts_with(R"({"time":")")) << said;
  EXPECT_TRUE(said.ends_with(R"("level":"info","message":"a {} b\n","connection":"c"})"
                             "\n"))
      << said;
}

}  // namespace
