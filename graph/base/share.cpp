#include "graph/base/share.h"

#include <algorithm>
#include <cassert>

std::size_t Shares::limit() const {
  return std::clamp<std::size_t>(all_ / std::max<std::size_t>(busy_, 1), 1, each_);
}

Share::~Share() { assert(running_ == 0 && waiting_ == 0); }

void Share::take() {
  if (running_++ == 0) ++shares_.busy_;
  ++shares_.running_;
}

asio::awaitable<Share::Turn> Share::enter() {
  if (waiting_ > 0 || running_ >= shares_.limit()) {
    ++waiting_;
    co_await queue_.wait();  // whoever wakes us has taken the turn for us
  } else {
    take();
  }
  co_return Turn(*this);
}

void Share::leave() {
  assert(running_ > 0);
  --shares_.running_;
  if (--running_ == 0) --shares_.busy_;
  while (waiting_ > 0 && running_ < shares_.limit()) {
    --waiting_;
    take();
    queue_.notify_one();
  }
}
