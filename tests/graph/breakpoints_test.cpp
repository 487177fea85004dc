// Requests that stop where two of them race (QEMU's iotest 077 in our words), and their way from
// point to point.
#include "graph/filter/breakpoints.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/graph_fixture.h"

namespace {

using graph::Breakpoints;
using graph::DebugEvent;
using test::code_of;
using testing::ElementsAre;

class Breakpoint : public test::GraphTest {
 protected:
  graph::Node& faulty(const std::string& keys, const std::string& image = "disk",
                      const std::string& name = "faulty") {
    return add(name, "driver = 'blkdebug'\nimage = '" + image + "'\n" + keys);
  }
};

TEST_F(Breakpoint, SuspendsARequestAtAnEventUntilItIsResumed) {
  test::Disk& disk = this->disk("disk", 4096);
  graph::Node& made = faulty("");
  Breakpoints& points = *graph::breakpoints_of(made);
  test::View& view = writer(add("raw", "driver = 'raw'\nfile = 'faulty'\n"));
  points.suspend_at(DebugEvent::write_aio, "A");

  const auto writing = start_write(view, 0, "1");
  settle();
  EXPECT_TRUE(points.is_suspended("A"));
  EXPECT_FALSE(points.is_suspended("B"));
  EXPECT_OK(write(view, 1, "2"));  // it stops one
  EXPECT_FALSE(writing->done());
  EXPECT_EQ(disk.content.substr(0, 3), ".2.");

  EXPECT_OK(points.resume("A"));
  settle();
  EXPECT_TRUE(writing->succeeded());
  EXPECT_EQ(disk.content.substr(0, 3), "12.");
  EXPECT_EQ(code_of(points.resume("A")), Errc::invalid_argument);
}

TEST_F(Breakpoint, SuspendedRequestsCanBeWaitedFor) {
  disk("disk", 4096);
  Breakpoints& points = *graph::breakpoints_of(faulty(""));
  test::View& view = reader(add("raw", "driver = 'raw'\nfile = 'faulty'\n"));
  points.suspend_at(DebugEvent::read_aio, "A");
  const auto wait = [](Breakpoints& of) -> Task<> {
    co_await of.wait_suspended("A");
    co_return of.resume("A");
  };

  const auto waiting = start(wait(points));
  settle();
  EXPECT_FALSE(waiting->done());
  const auto reading = start_read(view, {0, 1});
  settle();

  EXPECT_TRUE(waiting->succeeded() && reading->succeeded());
}

TEST_F(Breakpoint, ABreakpointThatIsRemovedLetsItsRequestsGo) {
  disk("disk", 4096);
  Breakpoints& points = *graph::breakpoints_of(faulty(""));
  test::View& view = reader(add("raw", "driver = 'raw'\nfile = 'faulty'\n"));
  points.suspend_at(DebugEvent::read_aio, "A");
  points.suspend_at(DebugEvent::write_aio, "A");
  const auto reading = start_read(view, {0, 1});
  settle();

  EXPECT_OK(points.remove_breakpoint("A"));
  settle();

  EXPECT_TRUE(reading->succeeded());
  EXPECT_EQ(code_of(points.remove_breakpoint("A")), Errc::invalid_argument);
}

TEST_F(Breakpoint, OtherNodesHaveNoBreakpoints) {
  EXPECT_EQ(graph::breakpoints_of(disk("disk", 512)), nullptr);
}

// Stops a request at each event on its way, and notes which came.
class EventTrace {
 public:
  EventTrace(Breakpoints& points, std::vector<DebugEvent> events) : points_(points) {
    for (const DebugEvent event : events) {
      const std::string tag(to_string(event));
      points_.suspend_at(event, tag);
      waiting_for_.push_back(tag);
    }
  }
  template <class Settle>
  std::vector<std::string> follow(const Settle& settle) {
    std::vector<std::string> seen;
    for (;;) {
      settle();
      const auto now = std::ranges::find_if(
          waiting_for_, [&](const std::string& tag) { return points_.is_suspended(tag); });
      if (now == waiting_for_.end()) return seen;
      EXPECT_OK(points_.resume(*now));
      seen.push_back(*now);
      waiting_for_.erase(now);
    }
  }

 private:
  Breakpoints& points_;
  std::vector<std::string> waiting_for_;
};

TEST_F(Breakpoint, APaddedWritePassesItsEventsInOrder) {
  disk("disk", 16384);
  graph::Node& made = faulty("align = 4096");
  test::View& view = writer(add("raw", "driver = 'raw'\nfile = 'faulty'\n"));
  EventTrace trace(
      *graph::breakpoints_of(made),
      {DebugEvent::pwritev_done, DebugEvent::pwritev, DebugEvent::pwritev_rmw_after_tail,
       DebugEvent::pwritev_rmw_tail, DebugEvent::pwritev_rmw_after_head,
       DebugEvent::pwritev_rmw_head, DebugEvent::write_aio, DebugEvent::pwritev_zero});

  const auto writing = start_write(view, 512, std::string(8192, 'x'));
  const auto seen = trace.follow([&] { settle(); });

  EXPECT_TRUE(writing->succeeded());
  EXPECT_THAT(seen,
              ElementsAre("write_aio", "pwritev_rmw_head", "pwritev_rmw_after_head",
                          "pwritev_rmw_tail", "pwritev_rmw_after_tail", "pwritev", "pwritev_done"));
}

TEST_F(Breakpoint, ZeroesPassTheirEventsInOrder) {
  test::Disk& disk = this->disk("disk", 16384);
  disk.wants.native_zeroes = true;
  refresh();
  graph::Node& made = faulty("");
  test::View& view = writer(made);
  EventTrace trace(*graph::breakpoints_of(made),
                   {DebugEvent::pwritev_done, DebugEvent::pwritev, DebugEvent::pwritev_zero});

  const auto zeroing = start(view.write_zeroes({0, 512}));
  const auto seen = trace.follow([&] { settle(); });

  EXPECT_TRUE(zeroing->succeeded());
  EXPECT_THAT(seen, ElementsAre("pwritev_zero", "pwritev_done"));
}

// Wherever the first of two writes into one unit stops, both are there in the end.
TEST_F(Breakpoint, A2_NeighboursInOneUnitSurviveEachOtherWhereverTheFirstOneStops) {
  const std::vector<DebugEvent> events{
      DebugEvent::pwritev_rmw_head, DebugEvent::pwritev_rmw_after_head,
      DebugEvent::pwritev_rmw_tail, DebugEvent::pwritev_rmw_after_tail,
      DebugEvent::pwritev,          DebugEvent::pwritev_done};
  int number = 0;
  for (const DebugEvent event : events) {
    for (const bool whole_unit : {false, true}) {
      const std::string name = std::to_string(number++);
      test::Disk& disk = this->disk("d" + name, 16384);
      graph::Node& made = faulty("align = 4096", disk.name(), "f" + name);
      Breakpoints& points = *graph::breakpoints_of(made);
      test::View& view = writer(made);
      points.suspend_at(event, "A");

      const auto first = start_write(view, 512, std::string(512, '1'));
      settle();
      ASSERT_TRUE(points.is_suspended("A")) << to_string(event);
      const auto second = whole_unit ? start_write(view, 4096, std::string(4096, '2'))
                                     : start_write(view, 1024, std::string(512, '2'));
      settle();
      EXPECT_EQ(second->done(), whole_unit) << "only those who share the unit wait";
      EXPECT_OK(points.resume("A"));
      settle();

      EXPECT_TRUE(first->succeeded() && second->succeeded());
      EXPECT_EQ(disk.content.substr(511, 514),
                "." + std::string(512, '1') + (whole_unit ? "." : "2"));
      const std::string other = disk.content.substr(whole_unit ? 4096 : 1024, 512);
      EXPECT_EQ(other, std::string(512, '2')) << to_string(event);
    }
  }
}

TEST_F(Breakpoint, A2_ADiscardWaitsForAPaddedWriteToo) {
  test::Disk& disk = this->disk("disk", 16384);
  graph::Node& made = faulty("align = 4096");
  Breakpoints& points = *graph::breakpoints_of(made);
  test::View& view = writer(made);
  points.suspend_at(DebugEvent::pwritev_rmw_after_head, "A");

  const auto writing = start_write(view, 512, std::string(512, '1'));
  settle();
  const auto discarding = start(view.discard({0, 4096}));
  settle();
  EXPECT_FALSE(discarding->done());
  EXPECT_OK(points.resume("A"));
  settle();

  EXPECT_TRUE(writing->succeeded() && discarding->succeeded());
  EXPECT_THAT(disk.script.calls, ElementsAre("read 0+4096", "write 0+4096", "discard 0+4096"));
}

TEST_F(Breakpoint, ARequestThatIsSuspendedHoldsADrainUp) {
  test::Disk& disk = this->disk("disk", 4096);
  graph::Node& made = faulty("");
  Breakpoints& points = *graph::breakpoints_of(made);
  test::View& view = writer(made);
  points.suspend_at(DebugEvent::pwritev, "A");
  const auto writing = start_write(view, 0, "x");
  settle();

  const auto bypassing = start(graph.bypass_filter(shared(made)));
  settle();
  EXPECT_FALSE(bypassing->done());
  EXPECT_OK(points.resume("A"));
  settle();

  EXPECT_TRUE(bypassing->succeeded() && writing->succeeded());
  EXPECT_EQ(disk.content[0], 'x');
}

}  // namespace
