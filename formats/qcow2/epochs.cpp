#include "formats/qcow2/epochs.h"

namespace formats::qcow2 {

std::uint64_t Epochs::end() {
  if (inside_.size() == 1 && inside_.back() == 0) return first_ - 1;  // nobody is there
  const std::uint64_t ended = current();
  inside_.push_back(0);
  return ended;
}

void Epochs::leave(std::uint64_t epoch) {
  assert(epoch >= first_ && epoch <= current());
  std::uint64_t& count = inside_[epoch - first_];
  assert(count > 0);
  --count;
  bool passed = false;
  while (inside_.size() > 1 && inside_.front() == 0) {
    inside_.pop_front();
    ++first_;
    passed = true;
  }
  if (passed) ended_.notify_all();
}

asio::awaitable<void> Epochs::over(std::uint64_t epoch) {
  while (!is_over(epoch)) co_await ended_.wait();
}

}  // namespace formats::qcow2
