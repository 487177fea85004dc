#include "graph/base/offload.h"

#include <gtest/gtest.h>

#include <asio/io_context.hpp>
#include <memory>
#include <thread>
#include <vector>

#include "graph/base/task.h"

namespace {

asio::awaitable<void> square(asio::thread_pool& pool, int n, std::vector<int>& squares,
                             std::thread::id home) {
  auto work = [n] {
    EXPECT_NE(std::this_thread::get_id(), std::thread::id());
    return std::pair(n * n, std::this_thread::get_id());
  };
  const auto [result, elsewhere] = co_await offload(pool, std::move(work));
  EXPECT_NE(elsewhere, home);
  EXPECT_EQ(std::this_thread::get_id(), home);
  squares.push_back(result);  // only the home thread does
}

TEST(Offload, RunsElsewhereAndComesBack) {
  asio::io_context context{1};
  asio::thread_pool pool(3);
  std::vector<int> squares;

  for (int i = 0; i < 1000; ++i) {
    spawn(context.get_executor(), Gate::Pass(),
          square(pool, i, squares, std::this_thread::get_id()));
  }
  context.run();

  EXPECT_EQ(squares.size(), 1000U);
  pool.join();
}

asio::awaitable<void> fetch(asio::thread_pool& pool, std::unique_ptr<int>& out) {
  auto work = [] { return std::make_unique<int>(7); };
  out = co_await offload(pool, std::move(work));
}

TEST(Offload, KeepsTheEventLoopBusyMeanwhileAndMovesTheResult) {
  asio::io_context context{1};
  asio::thread_pool pool(1);
  std::unique_ptr<int> result;
  spawn(context.get_executor(), Gate::Pass(), fetch(pool, result));

  context.run();  // would return at once if nothing were pending

  ASSERT_TRUE(result);
  EXPECT_EQ(*result, 7);
}

}  // namespace
