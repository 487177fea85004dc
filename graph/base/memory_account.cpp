#include "graph/base/memory_account.h"

#include <algorithm>
#include <asio/post.hpp>
#include <cassert>

MemoryAccount::~MemoryAccount() { assert(branches_.empty()); }

bool MemoryAccount::try_take(std::size_t bytes) {
  std::size_t used = used_.load();
  do {
    if (used != 0 && (used > limit_ || bytes > limit_ - used)) return false;
  } while (!used_.compare_exchange_weak(used, used + bytes));
  return true;
}

// Whoever waits has said so before it looked at the number for the last time, so either it saw this
// change of the number or we see that it waits.
void MemoryAccount::give(std::size_t bytes) {
  [[maybe_unused]] const std::size_t before = used_.fetch_sub(bytes);
  assert(before >= bytes);
  if (waiting_.load() == 0) return;
  for (MemoryBranch* branch : branches_) {
    if (branch->asked_.exchange(false)) {
      asio::post(branch->executor_, [branch] { branch->wake_first(); });
    }
  }
}

MemoryBranch::MemoryBranch(MemoryAccount& account, asio::any_io_executor executor)
    : account_(account), executor_(std::move(executor)) {
  assert(account_.used() == 0);
  account_.branches_.push_back(this);
}

MemoryBranch::~MemoryBranch() {
  assert(line_.empty());
  std::erase(account_.branches_, this);
}

asio::awaitable<bool> MemoryBranch::take(std::size_t bytes, const bool& given_up) {
  if (try_take(bytes)) co_return true;
  const auto place = line_.emplace(line_.end());
  account_.waiting_.fetch_add(1);
  bool taken = false;
  while (!taken && !given_up) {
    const bool first = place == line_.begin();
    if (first) {
      asked_.store(true);
      taken = account_.try_take(bytes);
    }
    if (!taken) co_await place->wait();
  }
  account_.waiting_.fetch_sub(1);
  line_.erase(place);
  wake_first();
  co_return taken;
}

void MemoryBranch::wake_first() {
  if (!line_.empty()) line_.front().notify_all();
}

void MemoryBranch::wake() {
  for (WaitQueue& place : line_) place.notify_all();
}
