// memory_account.h - how much memory the requests of the whole process may take, and who waits for
// some of it. The only thing on the data path that workers share: a number, changed atomically.
//
// First come, first served, whatever worker they are on: who has to wait draws a ticket, each
// branch publishes the ticket of its first in line, and only the oldest of those may take. While
// somebody waits, nobody else takes anything, so what others hold can only become less.
#pragma once

#include <asio/any_io_executor.hpp>
#include <asio/awaitable.hpp>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <limits>
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
  bool fit_in(std::size_t bytes);
  void give(std::size_t bytes);
  MemoryBranch* branch_of_oldest() const;  // null when nobody waits
  void wake_oldest();

  const std::size_t limit_;
  std::atomic<std::size_t> used_ = 0;
  std::atomic<std::size_t> waiting_ = 0;
  std::atomic<std::uint64_t> tickets_ = 0;  // drawn so far
  std::vector<MemoryBranch*> branches_;     // complete before anything is taken
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
  // Not while others wait, on any worker.
  bool try_take(std::size_t bytes) { return !account_.pressed() && account_.fit_in(bytes); }
  // Waits for it; false when `given_up` became true and wake() was called.
  asio::awaitable<bool> take(std::size_t bytes, const bool& given_up);
  void give(std::size_t bytes) { account_.give(bytes); }
  // Everybody who waits looks at the world again.
  void wake();

 private:
  friend class MemoryAccount;
  static constexpr std::uint64_t nobody = std::numeric_limits<std::uint64_t>::max();
  struct Waiter {
    explicit Waiter(std::uint64_t drawn) : ticket(drawn) {}
    const std::uint64_t ticket;
    WaitQueue called;
  };
  void publish() { first_ticket_.store(line_.empty() ? nobody : line_.front().ticket); }
  void wake_first();  // from any thread

  MemoryAccount& account_;
  const asio::any_io_executor executor_;
  std::list<Waiter> line_;
  std::atomic<std::uint64_t> first_ticket_ = nobody;  // of the first in the line
  std::atomic<bool> waking_ = false;                  // the first in the line will be called
};
