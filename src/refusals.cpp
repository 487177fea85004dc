#include "src/refusals.h"

namespace app {
namespace {

constexpr std::size_t named_max = 5;
constexpr auto interval = std::chrono::seconds(10);

}  // namespace

void Refusals::note(const Peer& peer) {
  const Clock::Time now = clock_.now();
  if (!begin_ || now - *begin_ >= interval) {
    sum_up();
    begin_ = now;
    named_ = 0;
  }
  if (named_ == named_max) {
    ++counted_;
    return;
  }
  ++named_;
  log_.info("client " + peer.text + ": refused, " + where_ + " does not allow it",
            {.connection = peer.text});
}

void Refusals::sum_up() {
  if (counted_ == 0) return;
  log_.info(where_ + ": " + std::to_string(counted_) + " more clients were refused");
  counted_ = 0;
}

}  // namespace app
