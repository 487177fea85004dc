#include "graph/base/helpers.h"

#include <algorithm>
#include <optional>
#include <thread>
#include <utility>

#include "graph/base/offload.h"

namespace {

class PoolHelpers final : public Helpers {
 public:
  ~PoolHelpers() override {
    if (pool_) pool_->join();
  }

  asio::awaitable<void> run(Share& share, std::function<void()> work) override {
    const Share::Turn turn = co_await share.enter();
    if (!pool_) pool_.emplace(threads_);
    const auto call = [&work] {
      work();
      return true;
    };
    co_await offload(*pool_, call);
  }
  Shares& shares() override { return shares_; }

 private:
  const unsigned threads_ = std::clamp(std::thread::hardware_concurrency(), 1U, threads_max);
  Shares shares_{2 * threads_max, threads_max};
  std::optional<asio::thread_pool> pool_;
};

}  // namespace

std::unique_ptr<Helpers> make_helpers() { return std::make_unique<PoolHelpers>(); }
