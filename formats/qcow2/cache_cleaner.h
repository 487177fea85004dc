// cache_cleaner.h - forgets tables that nobody has used for a while (cache-clean-interval), as long
// as there is something to forget: an idle image costs no timer.
#pragma once

#include <functional>
#include <memory>

#include "graph/base/clock.h"
#include "graph/base/home.h"
#include "graph/base/wait_queue.h"

namespace formats::qcow2 {

class CacheCleaner {
 public:
  // `clean` is called once in each interval, until it says that nothing is left to be done. An
  // interval of 0: never. Lifetime: what `clean` refers to outlives the cleaner.
  CacheCleaner(Clock::Duration interval, std::function<bool()> clean)
      : interval_(interval), clean_(std::move(clean)) {}
  CacheCleaner(const CacheCleaner&) = delete;
  CacheCleaner& operator=(const CacheCleaner&) = delete;
  ~CacheCleaner() { stop(); }

  // There may be something to forget from now on.
  void wake(Home& home);
  // Nothing is called from now on. Also before a change of the worker.
  void stop();
  // The same, and nothing is left of it when this returns.
  asio::awaitable<void> end();

 private:
  // Of one waking. What is left of it after stop() knows nothing but this.
  struct Watch {
    std::unique_ptr<Timer> timer;
    bool over = false;
    bool ended = false;
    WaitQueue when_ended;
  };
  static asio::awaitable<void> watch_over(CacheCleaner& cleaner, Watch& watch, Clock& clock);
  static asio::awaitable<void> run(std::shared_ptr<Watch> watch, CacheCleaner& cleaner,
                                   Clock& clock);

  const Clock::Duration interval_;
  const std::function<bool()> clean_;
  std::shared_ptr<Watch> watch_;  // null: asleep
};

}  // namespace formats::qcow2
