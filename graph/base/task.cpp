#include "graph/base/task.h"

#include <asio/co_spawn.hpp>
#include <asio/post.hpp>
#include <asio/use_awaitable.hpp>
#include <exception>

namespace {

asio::awaitable<void> rooted(Gate::Pass pass, asio::awaitable<void> root) {
  co_await asio::this_coro::throw_if_cancelled(false);
  co_await std::move(root);
  pass.release();  // here, not when the frame is recycled: the gate's owner may be waiting
}

}  // namespace

void spawn(const asio::any_io_executor& executor, Gate::Pass pass, asio::awaitable<void> root) {
  asio::co_spawn(executor, rooted(std::move(pass), std::move(root)),
                 [](const std::exception_ptr& thrown) {
                   // Our code does not throw; what is left is memory exhaustion, which ends the
                   // process.
                   if (thrown) std::terminate();
                 });
}

asio::awaitable<void> yield() {
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  co_await asio::post(executor, asio::use_awaitable);
}
