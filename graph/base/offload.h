// offload.h - work that may block or burns CPU, done by a thread pool while the coroutine waits.
#pragma once

#include <asio/any_io_executor.hpp>
#include <asio/associated_executor.hpp>
#include <asio/async_result.hpp>
#include <asio/awaitable.hpp>
#include <asio/post.hpp>
#include <asio/prefer.hpp>
#include <asio/thread_pool.hpp>
#include <asio/use_awaitable.hpp>
#include <optional>
#include <type_traits>
#include <utility>

// Runs `work` on a thread of `pool` and returns what it returns, on the executor of the caller,
// which stays busy meanwhile. `work` touches nothing that anybody else may touch before it has
// ended, and does not throw. Requires: GCC 12: `work` is a named object, not a lambda written
// inside the co_await expression. Lifetime: the pool outlives the task. Cancel: no.
template <class Function>
asio::awaitable<std::invoke_result_t<Function&>> offload(asio::thread_pool& pool, Function work) {
  std::optional<std::invoke_result_t<Function&>> result;
  auto start = [&pool, &work, &result](auto handler) {
    auto home = asio::prefer(asio::get_associated_executor(handler),
                             asio::execution::outstanding_work.tracked);
    asio::post(pool,
               [&work, &result, home = std::move(home), resume = std::move(handler)]() mutable {
                 result.emplace(work());
                 asio::post(home, std::move(resume));
               });
  };
  co_await asio::async_initiate<const asio::use_awaitable_t<>, void()>(std::move(start),
                                                                       asio::use_awaitable);
  co_return std::move(*result);
}
