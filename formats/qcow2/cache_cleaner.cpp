#include "formats/qcow2/cache_cleaner.h"

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>

namespace formats::qcow2 {

void CacheCleaner::wake(Home& home) {
  if (watch_ != nullptr || interval_ <= Clock::Duration::zero()) return;
  watch_ = std::make_shared<Watch>();
  watch_->timer = home.clock.timer(interval_);
  // no Gate::Pass: after stop() it touches only what it owns, perhaps on a worker that the image
  // has left
  asio::co_spawn(home.executor, run(watch_, *this, home.clock), asio::detached);
}

void CacheCleaner::stop() {
  if (watch_ == nullptr) return;
  watch_->over = true;
  watch_->timer->cancel();
  watch_.reset();
}

asio::awaitable<void> CacheCleaner::end() {
  const std::shared_ptr<Watch> watch = watch_;
  stop();
  while (watch != nullptr && !watch->ended) co_await watch->when_ended.wait();
}

asio::awaitable<void> CacheCleaner::run(std::shared_ptr<Watch> watch, CacheCleaner& cleaner,
                                        Clock& clock) {
  co_await watch_over(cleaner, *watch, clock);
  watch->ended = true;
  watch->when_ended.notify_all();
}

asio::awaitable<void> CacheCleaner::watch_over(CacheCleaner& cleaner, Watch& watch, Clock& clock) {
  while (!watch.over) {
    const bool came = co_await watch.timer->wait();
    if (!came || watch.over) co_return;
    if (!cleaner.clean_()) {
      cleaner.watch_.reset();
      co_return;
    }
    watch.timer = clock.timer(cleaner.interval_);
  }
}

}  // namespace formats::qcow2
