#include "graph/base/wait_queue.h"

#include <asio/associated_executor.hpp>
#include <asio/post.hpp>
#include <cassert>

WaitQueue::~WaitQueue() { assert(waiters_.empty()); }

asio::awaitable<void> WaitQueue::wait() {
  return asio::async_initiate<const asio::use_awaitable_t<>, void()>(
      [this](auto handler) { waiters_.push_back(std::move(handler)); }, asio::use_awaitable);
}

void WaitQueue::resume(Handler handler) {
  auto executor = asio::get_associated_executor(handler);
  asio::post(executor, std::move(handler));
}

void WaitQueue::notify_one() {
  if (waiters_.empty()) return;
  Handler first = std::move(waiters_.front());
  waiters_.pop_front();
  resume(std::move(first));
}

void WaitQueue::notify_all() {
  std::list<Handler> woken;
  woken.swap(waiters_);
  for (auto& handler : woken) resume(std::move(handler));
}
