#include "graph/base/call_threads.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <asio/io_context.hpp>
#include <csignal>
#include <list>

#include "graph/base/task.h"

namespace {

// A call that hangs until somebody writes into the pipe.
class Pipe {
 public:
  Pipe() { EXPECT_EQ(::pipe(ends_.data()), 0); }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  ~Pipe() {
    ::close(ends_[0]);
    ::close(ends_[1]);
  }
  SysResult<> wait() const {
    char byte = 0;
    if (::read(ends_[0], &byte, 1) == 1) return {};
    return std::unexpected(Errno{EIO});
  }
  void release(std::size_t calls) const {
    const std::string bytes(calls, 'x');
    EXPECT_EQ(::write(ends_[1], bytes.data(), calls), static_cast<ssize_t>(calls));
  }

 private:
  std::array<int, 2> ends_{};
};

asio::awaitable<void> hang(CallThreads& threads, Share& share, Pipe& pipe, std::size_t& ended) {
  const auto call = [&pipe] { return pipe.wait(); };
  const SysResult<> done = co_await threads.run(share, call);
  if (done) ++ended;
}

asio::awaitable<void> be_quick(CallThreads& threads, Share& share, std::size_t times,
                               asio::io_context& stop_then) {
  for (std::size_t i = 0; i < times; ++i) {
    const auto call = []() -> SysResult<int> { return 7; };
    const SysResult<int> done = co_await threads.run(share, call);
    EXPECT_EQ(done.value_or(0), 7);
  }
  stop_then.stop();
}

TEST(CallThreads, GoOnForOneFileWhileThoseOfManyOthersHang) {
  constexpr std::size_t files = 30;
  constexpr std::size_t calls = 100;  // of each
  asio::io_context context{1};
  CallThreads threads;
  Pipe pipe;
  std::size_t ended = 0;
  std::list<Share> stuck;
  for (std::size_t i = 0; i < files; ++i) {
    Share& share = stuck.emplace_back(threads.shares());
    for (std::size_t j = 0; j < calls; ++j) {
      spawn(context.get_executor(), Gate::Pass(), hang(threads, share, pipe, ended));
    }
  }
  Share quick(threads.shares());

  spawn(context.get_executor(), Gate::Pass(), be_quick(threads, quick, 1000, context));
  context.run();
  EXPECT_EQ(ended, 0U);

  pipe.release(files * calls);
  context.restart();
  context.run();
  EXPECT_EQ(ended, files * calls);
}

asio::awaitable<void> ask_for_signals(CallThreads& threads, bool& blocked) {
  Share share(threads.shares());
  const auto call = []() -> SysResult<bool> {
    sigset_t mask;
    ::pthread_sigmask(SIG_BLOCK, nullptr, &mask);
    return ::sigismember(&mask, SIGTERM) == 1;
  };
  const SysResult<bool> answer = co_await threads.run(share, call);
  blocked = answer.value_or(false);
}

TEST(CallThreads, LeaveSignalsToOthers) {
  asio::io_context context{1};
  CallThreads threads;
  bool blocked = false;

  spawn(context.get_executor(), Gate::Pass(), ask_for_signals(threads, blocked));
  context.run();

  EXPECT_TRUE(blocked);
}

asio::awaitable<void> ask_for_name(CallThreads& threads, std::string& name) {
  Share share(threads.shares());
  const auto call = []() -> SysResult<std::string> {
    std::array<char, 16> text{};
    ::pthread_getname_np(::pthread_self(), text.data(), text.size());
    return std::string(text.data());
  };
  const SysResult<std::string> answer = co_await threads.run(share, call);
  name = answer.value_or("");
}

TEST(CallThreads, HaveANameOfTheirOwn) {
  asio::io_context context{1};
  CallThreads threads;
  std::string name;

  spawn(context.get_executor(), Gate::Pass(), ask_for_name(threads, name));
  context.run();

  EXPECT_EQ(name, "blocking calls");
}

}  // namespace
