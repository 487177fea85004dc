#include "graph/request_tracker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/world.h"

namespace {

using graph::RequestTracker;
using testing::ElementsAre;
using enum graph::RequestTracker::Hold;

// Claims by name: who holds one, in the order in which they got it, and letting go.
class Tracker : public testing::Test {
 protected:
  void claim(std::string name, Range range, RequestTracker::Hold hold) {
    spawn(world_.home.executor, Gate::Pass(), take(*this, std::move(name), range, hold));
    world_.scheduler.run();
  }
  void let_go(const std::string& name) {
    std::erase_if(held_, [&](const auto& one) { return one.first == name; });
    world_.scheduler.run();
  }
  void TearDown() override {
    while (!held_.empty()) {
      held_.clear();
      world_.scheduler.run();
    }
  }
  std::vector<std::string> holders() const {
    std::vector<std::string> names;
    for (const auto& [name, claim] : held_) names.push_back(name);
    return names;
  }

 private:
  static asio::awaitable<void> take(Tracker& self, std::string name, Range range,
                                    RequestTracker::Hold hold) {
    auto claim = co_await self.tracker_.claim(range, hold);
    self.held_.emplace_back(std::move(name), std::move(claim));
  }
  sim::World world_{1};
  RequestTracker tracker_;
  std::vector<std::pair<std::string, RequestTracker::Claim>> held_;
};

TEST_F(Tracker, LetsOrdinaryWritesOverlap) {
  claim("a", {0, 100}, shared);
  claim("b", {50, 100}, shared);
  EXPECT_THAT(holders(), ElementsAre("a", "b"));
}

TEST_F(Tracker, KeepsAnExclusiveClaimFromAllThatOverlapIt) {
  claim("rmw", {0, 100}, exclusive);
  claim("write", {99, 1}, shared);
  claim("rmw2", {0, 1}, exclusive);
  claim("neighbour", {100, 1}, exclusive);
  EXPECT_THAT(holders(), ElementsAre("rmw", "neighbour"));

  let_go("rmw");
  EXPECT_THAT(holders(), testing::UnorderedElementsAre("neighbour", "write", "rmw2"));
}

// Or a stream of ordinary writes would keep a padded one out for ever.
TEST_F(Tracker, LetsNobodyOvertakeAWaitingExclusiveClaim) {
  claim("write", {0, 100}, shared);
  claim("rmw", {50, 10}, exclusive);
  claim("late", {55, 1}, shared);
  EXPECT_THAT(holders(), ElementsAre("write"));

  let_go("write");
  EXPECT_THAT(holders(), ElementsAre("rmw"));
  let_go("rmw");
  EXPECT_THAT(holders(), ElementsAre("late"));
}

TEST_F(Tracker, BearsRangesUpToTheLastByteThereIs) {
  const std::uint64_t max = ~std::uint64_t{0};
  claim("tail", {512, max - 512}, exclusive);
  claim("below", {0, 512}, exclusive);
  claim("inside", {1'000'000, 1}, shared);
  EXPECT_THAT(holders(), ElementsAre("tail", "below"));
}

}  // namespace
