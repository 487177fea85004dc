#include "graph/base/gate.h"

asio::awaitable<Gate::Pass> Gate::enter() {
  while (closed_ > 0 && !shut_) co_await entrants_.wait();
  if (shut_) co_return Pass();
  co_return enter_anyway();
}

void Gate::open() {
  assert(closed_ > 0);
  if (--closed_ == 0) entrants_.notify_all();
}

void Gate::shut() {
  shut_ = true;
  entrants_.notify_all();
}

asio::awaitable<void> Gate::drained() {
  while (inside_ > 0) co_await leavers_.wait();
}
