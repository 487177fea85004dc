#include "src/progress.h"

#include <unistd.h>

#include <cstdio>

namespace app {

ProgressLine::ProgressLine() : is_seen_(::isatty(STDERR_FILENO) == 1) {}

void ProgressLine::show(std::uint64_t done, std::uint64_t total) {
  if (!is_seen_ || total == 0) return;
  const int now = static_cast<int>(static_cast<double>(done) / static_cast<double>(total) * 1000);
  if (now == shown_) return;
  shown_ = now;
  std::fprintf(stderr, "\r    (%d.%d/100%%)", now / 10, now % 10);
}

void ProgressLine::end() {
  if (shown_ >= 0) std::fprintf(stderr, "\r%20s\r", "");
  shown_ = -1;
}

}  // namespace app
