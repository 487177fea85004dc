// wait_queue.h - coroutines that wait for another one to say "go on": the only primitive that
// suspends without a system call beneath. First come, first served. Single-threaded, like
// everything in a graph.
#pragma once

#include <asio/any_io_executor.hpp>
#include <asio/async_result.hpp>
#include <asio/awaitable.hpp>
#include <asio/use_awaitable.hpp>
#include <list>

class WaitQueue {
 public:
  WaitQueue() = default;
  WaitQueue(const WaitQueue&) = delete;
  WaitQueue& operator=(const WaitQueue&) = delete;
  // Requires: nobody waits.
  ~WaitQueue();

  // Suspends until notified. What was true when the notifier ran may be true no more: re-check in a
  // loop. The waiter resumes through its executor, never inside notify.
  asio::awaitable<void> wait();
  void notify_one();
  void notify_all();
  bool empty() const { return waiters_.empty(); }

 private:
  using Handler = typename asio::async_result<asio::use_awaitable_t<>, void()>::handler_type;
  static void resume(Handler handler);
  std::list<Handler> waiters_;
};
