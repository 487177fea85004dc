// signals.h - the signals that a daemon answers, as messages. They are blocked from the start to
// the end of the process, so there is no moment in which one of them would still, or again, do what
// the system does by default: end the process.
#pragma once

#include <asio/any_io_executor.hpp>
#include <asio/awaitable.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <optional>

namespace app {

class Signals {
 public:
  // From now on SIGINT, SIGTERM and SIGHUP wait until somebody asks for them.
  // Requires: the process has one thread; others inherit this.
  static void block();

  explicit Signals(const asio::any_io_executor& executor);
  // False when the system had no descriptor left for them: nothing would end the daemon then.
  bool is_open() const { return descriptor_.is_open(); }

  // The number of the next signal; none after close(). One caller at a time.
  asio::awaitable<std::optional<int>> next();
  void close();

 private:
  asio::posix::stream_descriptor descriptor_;
};

}  // namespace app
