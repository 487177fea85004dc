// progress.h - how far a long piece of work is, on a terminal; nothing elsewhere.
#pragma once

#include <cstdint>

namespace app {

class ProgressLine {
 public:
  ProgressLine();
  ~ProgressLine() { end(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void show(std::uint64_t done, std::uint64_t total);
  // Takes the line away, so that something else can be written.
  void end();

 private:
  bool is_seen_;
  int shown_ = -1;  // per mille
};

}  // namespace app
