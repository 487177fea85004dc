#include "graph/base/memory_account.h"

#include <algorithm>
#include <asio/post.hpp>
#include <cassert>

MemoryAccount::~MemoryAccount() { assert(branches_.empty()); }

bool MemoryAccount::fit_in(std::size_t bytes) {
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
  if (pressed()) wake_oldest();
}

MemoryBranch* MemoryAccount::branch_of_oldest() const {
  MemoryBranch* found = nullptr;
  std::uint64_t oldest = MemoryBranch::nobody;
  for (MemoryBranch* branch : branches_) {
    const std::uint64_t ticket = branch->first_ticket_.load();
    if (ticket < oldest) {
      oldest = ticket;
      found = branch;
    }
  }
  return found;
}

void MemoryAccount::wake_oldest() {
  if (MemoryBranch* const branch = branch_of_oldest()) branch->wake_first();
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

// Each who leaves the line calls the one who is the oldest then. So who finds an older one before
// it, and waits, is called when that one has left: the ticket was published before it looked.
asio::awaitable<bool> MemoryBranch::take(std::size_t bytes, const bool& given_up) {
  if (try_take(bytes)) co_return true;
  account_.waiting_.fetch_add(1);
  const auto place = line_.emplace(line_.end(), account_.tickets_.fetch_add(1));
  publish();
  bool taken = false;
  while (!taken && !given_up) {
    const bool first = place == line_.begin() && account_.branch_of_oldest() == this;
    if (first) taken = account_.fit_in(bytes);
    if (!taken) co_await place->called.wait();
  }
  line_.erase(place);
  publish();
  account_.waiting_.fetch_sub(1);
  account_.wake_oldest();
  co_return taken;
}

void MemoryBranch::wake_first() {
  if (waking_.exchange(true)) return;
  asio::post(executor_, [this] {
    waking_.store(false);
    if (!line_.empty()) line_.front().called.notify_all();
  });
}

void MemoryBranch::wake() {
  for (Waiter& waiter : line_) waiter.called.notify_all();
}
