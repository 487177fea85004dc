#include "graph/base/log.h"

#include <gtest/gtest.h>

#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace {

TEST(StderrLog, KeepsTheLinesOfManyThreadsWhole) {
  constexpr int threads = 4;
  constexpr int lines_each = 200;
  const auto log = stderr_log(LogLevel::info, LogFormat::json);
  testing::internal::CaptureStderr();

  {
    std::vector<std::jthread> writers;
    for (int i = 0; i < threads; ++i) {
      writers.emplace_back([&log] {
        for (int line = 0; line < lines_each; ++line) log->info(std::string(100, 'x'));
      });
    }
    for (int i = 0; i < lines_each; ++i) {
      log->set_level(i % 2 == 0 ? LogLevel::debug : LogLevel::info);
    }
  }
  std::istringstream said(testing::internal::GetCapturedStderr());

  int whole = 0;
  for (std::string line; std::getline(said, line);) {
    whole += static_cast<int>(line.starts_with("{\"time\":") &&
                              line.ends_with(std::string(100, 'x') + "\"}"));
  }
  EXPECT_EQ(whole, threads * lines_each);
}

}  // namespace
