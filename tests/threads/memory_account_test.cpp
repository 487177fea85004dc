// Several workers that take and give back at once: nobody is forgotten in the line, and in the end
// all of it is there again.
#include "graph/base/memory_account.h"

#include <gtest/gtest.h>

#include <asio/executor_work_guard.hpp>
#include <asio/io_context.hpp>
#include <list>
#include <thread>

#include "graph/base/task.h"

namespace {

constexpr std::size_t limit = 1000;
constexpr std::size_t takers = 8;  // on each worker
constexpr std::size_t rounds = 500;

struct Worker {
  explicit Worker(MemoryAccount& account) : branch(account, context.get_executor()) {}
  asio::io_context context{1};
  MemoryBranch branch;
  std::size_t served = 0;
};

// Who is the first wants nearly all, and the others little.
asio::awaitable<void> take_and_give(Worker& worker, std::size_t number) {
  const bool never = false;
  const std::size_t bytes = number == 0 ? limit - 100 : 10 * number + 200;
  for (std::size_t round = 0; round < rounds; ++round) {
    const bool taken = co_await worker.branch.take(bytes, never);
    if (!taken) co_return;
    ++worker.served;
    co_await yield();
    worker.branch.give(bytes);
  }
}

TEST(MemoryAccount, ForgetsNobodyWhateverWorkerGivesBack) {
  MemoryAccount account(limit);
  std::list<Worker> workers;
  for (int i = 0; i < 4; ++i) workers.emplace_back(account);
  // a branch's call may come when its own takers have all gone
  std::list<asio::executor_work_guard<asio::io_context::executor_type>> running;
  std::atomic<std::size_t> ended = 0;
  for (Worker& worker : workers) running.emplace_back(worker.context.get_executor());

  std::list<std::thread> threads;
  for (Worker& worker : workers) {
    threads.emplace_back([&] {
      for (std::size_t i = 0; i < takers; ++i) {
        spawn(worker.context.get_executor(), Gate::Pass(), take_and_give(worker, i));
      }
      while (worker.served < takers * rounds) worker.context.run_one();
      if (++ended == 4) running.clear();
      worker.context.run();
    });
  }
  for (std::thread& thread : threads) thread.join();

  EXPECT_EQ(account.used(), 0U);
  EXPECT_FALSE(account.pressed());
}

}  // namespace
