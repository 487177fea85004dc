// call_threads.h - system calls that may block, made by threads while the event loop goes on. There
// are as many threads as calls under way, so that none waits behind one that hangs; a file's share
// bounds how many it can occupy.
#pragma once

#include <asio/awaitable.hpp>
#include <asio/thread_pool.hpp>
#include <cerrno>
#include <expected>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "graph/base/engine.h"
#include "graph/base/offload.h"
#include "graph/base/share.h"

// Belongs to one worker; only the calls themselves run elsewhere.
class CallThreads {
 public:
  CallThreads() = default;
  CallThreads(const CallThreads&) = delete;
  CallThreads& operator=(const CallThreads&) = delete;
  // Waits for calls that are under way.
  ~CallThreads();

  // To be divided among the files.
  Shares& shares() { return shares_; }

  // Makes `call`, which returns a SysResult, in a turn of `share`. Errors: EAGAIN when the system
  // gives no thread at all. Lifetime: what `call` refers to outlives the task.
  template <class Call>
  asio::awaitable<std::invoke_result_t<Call&>> run(Share& share, Call call) {
    const Share::Turn turn = co_await share.enter();
    if (!have_thread()) co_return std::unexpected(Errno{EAGAIN});
    co_return co_await offload(pool_, std::move(call));
  }

 private:
  // Starts a thread if all are busy. False when there is none.
  bool have_thread();

  asio::thread_pool pool_{0};  // its threads are ours: started when needed
  std::vector<std::thread> threads_;
  Shares shares_{64, 16};
};
