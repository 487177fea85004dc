// A kernel that does not take what it is given by io_uring: requests wait or fail, and nothing else
// happens. liburing's call is stood in for, since no kernel can be made to say all of it.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <liburing.h>

#include <fstream>
#include <vector>

#include "tests/support/real_world.h"

namespace {

// What submitting says instead of doing it, one after the other.
thread_local std::vector<int> refusals;

}  // namespace

extern "C" int io_uring_submit(io_uring* ring) {
  using Submit = int (*)(io_uring*);
  static const auto real = reinterpret_cast<Submit>(::dlsym(RTLD_NEXT, "io_uring_submit"));
  if (refusals.empty()) return real(ring);
  const int result = refusals.front();
  refusals.erase(refusals.begin());
  return result;
}

namespace {

constexpr std::size_t block = 4096;

class ARing : public testing::Test {
 protected:
  void SetUp() override {
    std::ofstream(folder.path("a")) << std::string(block, 'a');
    if (!world.missing().empty()) GTEST_SKIP() << world.missing();
  }
  void TearDown() override { refusals.clear(); }

  // Reads `count` times at once, with what submitting is to say; returns the errors, 0 for none.
  std::vector<int> read(std::size_t count, std::vector<int> say) {
    std::vector<int> errors(count, -1);
    EXPECT_TRUE(world.run(read_all(std::move(say), errors)));
    return errors;
  }

  test::TempDir folder;
  test::RealWorld world{EngineKind::io_uring};

 private:
  Task<> read_all(std::vector<int> say, std::vector<int>& errors) {
    auto file = co_await world.home.engine.open(folder.path("a"), OpenFlags{});
    if (!file) co_return failure(Errc::io_error, "can't open it");
    Gate gate;
    refusals = std::move(say);
    const asio::any_io_executor executor = world.context.get_executor();
    for (int& error : errors) {
      spawn(executor, gate.enter_anyway(), read_one(**file, error));
    }
    co_await gate.drained();
    refusals.clear();
    (void)co_await (*file)->close();
    co_return ok;
  }
  static asio::awaitable<void> read_one(EngineFile& file, int& error) {
    Buffer memory(block);
    const Buffers out(memory.bytes());
    const SysResult<std::size_t> done = co_await file.read(0, out);
    error = done ? 0 : done.error().number;
    EXPECT_EQ(done.value_or(block), block);
  }
};

TEST_F(ARing, TriesAgainWhileTheKernelIsShortOfSomething) {
  const std::vector<int> errors =
      read(3, {-EAGAIN, -EBUSY, -ENOMEM, -EINTR, 0, -EBUSY, -EBUSY, -EBUSY, -EBUSY, -EBUSY});

  EXPECT_EQ(errors, std::vector<int>(3, 0));
}

TEST_F(ARing, FailsWhatTheKernelDoesNotTakeWithWhatItSays) {
  EXPECT_EQ(read(3, {-EPERM}), std::vector<int>(3, EPERM));
  EXPECT_EQ(read(3, {}), std::vector<int>(3, 0));  // nothing of them is left in the queue
}

TEST_F(ARing, FailsWhenTheKernelStaysBusy) {
  EXPECT_EQ(read(2, std::vector<int>(100'000, -ENOMEM)), std::vector<int>(2, ENOMEM));
}

TEST_F(ARing, TakesMoreThanItsQueueHolds) {
  EXPECT_EQ(read(1000, {-EBUSY, -EAGAIN}), std::vector<int>(1000, 0));
  EXPECT_EQ(read(1000, {-EBADF, -EBADF, -EBADF}).size(), 1000U);
}

}  // namespace
