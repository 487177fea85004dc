// Engines that are made by one thread and used by another, as the daemon's workers are.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <list>
#include <thread>

#include "tests/support/real_world.h"

namespace {

struct Worker {
  asio::io_context context{1};
  std::unique_ptr<Engine> engine;
  std::size_t bytes = 0;
};

asio::awaitable<void> read_all(Worker& worker, std::string path) {
  auto file = co_await worker.engine->open(path, OpenFlags{});
  if (!file) co_return;
  Buffer memory(4096);
  const Buffers out(memory.bytes());
  for (;;) {
    const auto got = co_await (*file)->read(worker.bytes, out);
    if (!got || *got == 0) break;
    worker.bytes += *got;
  }
  (void)co_await (*file)->close();
}

class Workers : public testing::TestWithParam<EngineKind> {};
INSTANTIATE_TEST_SUITE_P(Engines, Workers, test::each_engine, test::engine_of_case);

TEST_P(Workers, EachHaveAnEngineOfTheirOwn) {
  test::TempDir folder;
  std::ofstream(folder.path("a")) << std::string(1'000'000, 'a');
  std::list<Worker> workers(3);
  for (Worker& worker : workers) {
    auto made = make_engine(GetParam(), worker.context);
    if (!made) GTEST_SKIP() << made.error().message;
    worker.engine = *std::move(made);
  }

  std::list<std::thread> threads;
  for (Worker& worker : workers) {
    spawn(worker.context.get_executor(), Gate::Pass(), read_all(worker, folder.path("a")));
    threads.emplace_back([&worker] { worker.context.run(); });
  }
  for (std::thread& thread : threads) thread.join();

  for (const Worker& worker : workers) EXPECT_EQ(worker.bytes, 1'000'000U);
}

}  // namespace
