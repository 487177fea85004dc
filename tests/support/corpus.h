// corpus.h - the inputs that the fuzzers keep, tests/fuzz/corpus/TARGET, as an ordinary test.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

namespace test {

// Feeds each file in turn. Fails when there is none, too: then the corpus was not found.
inline void replay_corpus(const std::string& target, void (*feed)(std::string_view)) {
  namespace fs = std::filesystem;
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("tests/fuzz/corpus/" + target, error)) {
    files.push_back(entry.path());
  }
  std::ranges::sort(files);
  EXPECT_FALSE(files.empty()) << "no inputs for " << target << ": run from the top of the tree";
  for (const fs::path& path : files) {
    SCOPED_TRACE(path.string());
    std::ifstream file(path, std::ios::binary);
    feed(std::string(std::istreambuf_iterator<char>(file), {}));
    if (testing::Test::HasFailure()) return;
  }
}

}  // namespace test
