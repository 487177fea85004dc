// memory_account.h - how much memory the requests of the whole process may take, and who waits for
// some of it. The only thing on the data path that workers share: a number, changed atomically.
#pragma once

#include <asio/any_io_executor.hpp>
#include <asio/awaitable.hpp>
#include <atomic>
#include <cstddef>
#include <list>
#include <vector>

#include "graph/base/wait_queue.h"

class MemoryBranch;

class MemoryAccount {
 public:
  explicit MemoryAccount(std::size_t limit) : limit_(limit) {}
  // Requires: no branch is left.
  ~MemoryAccount();
  MemoryAccount(const MemoryAccount&) = delete;
  MemoryAccount& operator=(const MemoryAccount&) = delete;

  std::size_t limit() const { return limit_; }  // bytes
  std::size_t used() const { return used_.load(); }
  // Somebody waits for memory that others hold.
  bool pressed() const { return waiting_.load() > 0; }

 private:
  friend class MemoryBranch;
  // What is larger than the limit fits when nothing else is taken.
  bool try_take(std::size_t bytes);
  void give(std::size_t bytes);

  const std::size_t limit_;
  std::atomic<std::size_t> used_ = 0;
  std::atomic<std::size_t> waiting_ = 0;
  std::vector<MemoryBranch*> branches_;  // complete before anything is taken
};

// The account as one worker uses it.
class MemoryBranch {
 public:
  // Requires: nothing was taken from the account yet. Lifetime: the account outlives the branch;
  // what `executor` runs ends before the branch does.
  MemoryBranch(MemoryAccount& account, asio::any_io_executor executor);
  ~MemoryBranch();
  MemoryBranch(const MemoryBranch&) = delete;
  MemoryBranch& operator=(const MemoryBranch&) = delete;

  const MemoryAccount& account() const { return account_; }
  // Not while others of this worker wait: first come, first served.
  bool try_take(std::size_t bytes) { return line_.empty() && account_.try_take(bytes); }
  // Waits for it; false when `given_up` became true and wake() was called.
  asio::awaitable<bool> take(std::size_t bytes, const bool& given_up);
  void give(std::size_t bytes) { account_.give(bytes); }
  // Everybody who waits looks at the world again.
  void wake();

 private:
  friend class MemoryAccount;
  void wake_first();

  MemoryAccount& account_;
  const asio::any_io_executor executor_;
  std::list<WaitQueue> line_;        // one for each who waits
  std::atomic<bool> asked_ = false;  // the first in the line wants to hear of memory given back
};
