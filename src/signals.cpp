#include "src/signals.h"

#include <pthread.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>
#include <csignal>

namespace app {
namespace {

sigset_t all() {
  sigset_t set;
  sigemptyset(&set);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, number);
  return set;
}

int open_descriptor() {
  const sigset_t set = all();
  return ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

}  // namespace

void Signals::block() {
  const sigset_t set = all();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

Signals::Signals(const asio::any_io_executor& executor) : descriptor_(executor) {
  asio::error_code ignored;
  const int descriptor = open_descriptor();
  if (descriptor >= 0) descriptor_.assign(descriptor, ignored);
}

asio::awaitable<std::optional<int>> Signals::next() {
  signalfd_siginfo info{};
  while (descriptor_.is_open()) {
    if (::read(descriptor_.native_handle(), &info, sizeof info) == sizeof info) {
      co_return static_cast<int>(info.ssi_signo);
    }
    asio::error_code problem;
    co_await descriptor_.async_wait(asio::posix::stream_descriptor::wait_read,
                                    asio::redirect_error(asio::use_awaitable, problem));
    if (problem) break;
  }
  co_return std::nullopt;
}

void Signals::close() {
  asio::error_code ignored;
  descriptor_.close(ignored);
}

}  // namespace app
