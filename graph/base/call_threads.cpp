#include "graph/base/call_threads.h"

#include <pthread.h>

#include <csignal>
#include <system_error>

namespace {

constexpr const char* thread_name = "blocking calls";  // 15 characters at most

// Signals are the event loops' business, and interrupt nothing here. The name is one's own, or
// tools show all of them as the worker that has started them.
void serve(asio::thread_pool& pool) {
  sigset_t all;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
  ::pthread_setname_np(::pthread_self(), thread_name);
  pool.attach();
}

}  // namespace

CallThreads::~CallThreads() {
  pool_.stop();
  for (std::thread& thread : threads_) thread.join();
}

bool CallThreads::have_thread() {
  if (threads_.size() < shares_.running()) {
    try {
      threads_.emplace_back(serve, std::ref(pool_));
    } catch (const std::system_error&) {
      return !threads_.empty();  // then calls wait for those that there are
    }
  }
  return !threads_.empty();
}
