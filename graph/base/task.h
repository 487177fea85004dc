// task.h - the coroutine that everything which may wait returns, and the one place where a root is
// started.
#pragma once

#include <asio/any_io_executor.hpp>
#include <asio/awaitable.hpp>
#include <asio/co_spawn.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>

#include "graph/base/error.h"
#include "graph/base/gate.h"

// Lazy: runs when awaited. Its reference parameters outlive it.
template <class T = void>
using Task = asio::awaitable<Result<T>>;

// A task that has failed already, for functions that are no coroutines themselves.
template <class T = void>
Task<T> failed(Error error) {
  co_return std::unexpected(std::move(error));
}
inline Task<> succeeded() { co_return ok; }

// Starts `root` on `executor`, at once where the executor allows it; `pass` is held until it has
// ended, so that whoever owns the gate can wait for it. Cancellation never throws in it.
void spawn(const asio::any_io_executor& executor, Gate::Pass pass, asio::awaitable<void> root);

// Lets everything else that is ready run first, so that a long piece of work which never waits
// starves nobody.
asio::awaitable<void> yield();

// Runs `work` on `executor`, which may be another thread's, and comes back with what it says.
// Lifetime: the executor runs until `work` has ended.
template <class T>
Task<T> run_on(asio::any_io_executor executor, Task<T> work) {
  // the parameter lives in the frame, unlike a capture
  const auto root = [](Task<T> inner) -> Task<T> {
    co_await asio::this_coro::throw_if_cancelled(false);
    co_return co_await std::move(inner);
  };
  Task<T> task = root(std::move(work));
  co_return co_await asio::co_spawn(executor, std::move(task), asio::use_awaitable);
}
