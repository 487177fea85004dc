// Rules D-1 to D-6: quiet without a nested event loop.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "graph/protocol/protocol.h"
#include "tests/support/graph_fixture.h"

namespace {

using graph::DrainedSection;
using graph::ViewOptions;
using testing::IsEmpty;

class Drain : public test::GraphTest {
 protected:
  struct Section {
    std::optional<DrainedSection> held;
  };
  static asio::awaitable<void> begin(graph::Node& node, Section& into) {
    into.held.emplace(co_await DrainedSection::begin(node));
  }
  // Begins a drained section over `node`; it is held once the scheduler has run.
  void drain(graph::Node& node, Section& into) {
    spawn(world.home.executor, Gate::Pass(), begin(node, into));
    settle();
  }
};

TEST_F(Drain, D1_EndsWhenWhatIsInsideHasEndedAndLetsNothingIn) {
  test::Disk& disk = this->disk("disk", 512);
  test::Pass& filter = this->filter("filter", disk);
  test::View& direct = reader(disk);
  test::View& above = reader(filter);
  disk.script.hold("read");
  const auto one = start_read(direct, {0, 1});
  const auto two = start_read(above, {1, 1});
  settle();

  Section section;
  drain(disk, section);
  EXPECT_FALSE(section.held.has_value());
  const auto late = start_read(above, {2, 1});
  settle();
  EXPECT_EQ(disk.script.count("read"), 2U);

  disk.script.release();
  settle();
  EXPECT_TRUE(one->done() && two->done());
  ASSERT_TRUE(section.held.has_value());
  EXPECT_FALSE(late->done());
  EXPECT_EQ(disk.script.count("read"), 2U);

  section.held->end();
  settle();
  EXPECT_TRUE(late->succeeded());
}

TEST_F(Drain, D1_Nests) {
  test::Disk& disk = this->disk("disk", 512);
  test::View& view = reader(disk);
  Section outer;
  Section inner;
  drain(disk, outer);
  drain(disk, inner);
  const auto request = start_read(view, {0, 1});

  outer.held->end();
  outer.held->end();  // once is enough
  settle();
  EXPECT_FALSE(request->done());
  inner.held->end();
  settle();

  EXPECT_TRUE(request->succeeded());
}

TEST_F(Drain, D1_HoldsForAViewThatIsAttachedMeanwhile) {
  test::Disk& disk = this->disk("disk", 512);
  test::Pass& filter = this->filter("filter", disk);
  Section section;
  drain(disk, section);

  test::View& view = reader(filter);
  const auto request = start_read(view, {0, 1});
  settle();
  EXPECT_FALSE(request->done());
  EXPECT_THAT(disk.script.calls, IsEmpty());

  section.held->end();
  settle();
  EXPECT_TRUE(request->succeeded());
}

TEST_F(Drain, D1_HoldsForAViewThatComesToTheNodeByAChangeOfTheGraph) {
  test::Disk& quiet = disk("quiet", 512);
  test::Disk& other = disk("other", 512);
  test::Pass& pass = filter("pass", other);
  test::View& view = reader(pass);
  Section section;
  drain(quiet, section);

  graph::Transaction change(graph);
  change.replace_child(pass.file(), shared(quiet));
  EXPECT_OK(run(change.commit()));
  const auto request = start_read(view, {0, 1});
  settle();

  EXPECT_FALSE(request->done());
  section.held->end();
  settle();
  EXPECT_TRUE(request->succeeded());
}

TEST_F(Drain, D1_AViewMayBeDetachedWhileItIsDrainedAndWhileItIsWaitedFor) {
  test::Disk& disk = this->disk("disk", 512);
  test::View& busy = reader(disk, "export 'busy'");
  reader(disk, "export 'gone'");
  disk.script.hold("read");
  const auto request = start_read(busy, {0, 1});
  settle();

  Section section;
  drain(disk, section);
  EXPECT_FALSE(section.held.has_value());
  auto gone = std::move(views.back());
  views.pop_back();
  const auto detached = start(graph.detach(std::move(gone)));
  settle();
  disk.script.release();
  settle();

  EXPECT_TRUE(detached->succeeded());
  ASSERT_TRUE(section.held.has_value());
  section.held->end();
  EXPECT_FALSE(busy.drained());
}

TEST_F(Drain, D2_RequestsThatComeMeanwhileWaitAndAreNotRejected) {
  test::Disk& disk = this->disk("disk", 512);
  test::View& view = writer(disk);
  Section section;
  drain(disk, section);

  const auto reading = start_read(view, {0, 1});
  const auto writing = start_write(view, 0, "x");
  const auto zeroing = start(view.write_zeroes({1, 1}));
  const auto dropping = start(view.discard({2, 1}));
  const auto flushing = start(view.flush());
  const auto asking = start(view.block_status({0, 512}, graph::MapDepth::zeroes, 1));
  const auto hinting = start(view.prefetch({0, 1}));
  settle();
  EXPECT_THAT(disk.script.calls, IsEmpty());
  EXPECT_EQ(view.in_flight(), 0U);

  section.held->end();
  settle();
  EXPECT_TRUE(reading->succeeded() && writing->succeeded() && zeroing->succeeded());
  EXPECT_TRUE(dropping->succeeded() && flushing->succeeded() && hinting->succeeded());
  EXPECT_TRUE(asking->succeeded());
}

TEST_F(Drain, D2_WhatIsOutOfRangeIsSaidAtOnce) {
  test::Disk& disk = this->disk("disk", 512);
  test::View& view = reader(disk);
  Section section;
  drain(disk, section);

  const auto request = start_read(view, {512, 1});
  settle();

  EXPECT_EQ(request->error(), Errc::out_of_range);
  section.held->end();
}

TEST_F(Drain, D2_AUserWhoKnowsWhenItIsDrainedIsNotQueued) {
  test::Disk& disk = this->disk("disk", 512);
  ViewOptions options("job 'j'");
  options.queue_while_drained = false;
  test::View& view = this->view(disk, std::move(options));
  Section section;
  drain(disk, section);

  const auto request = start_read(view, {0, 1});
  settle();

  EXPECT_TRUE(request->succeeded());
  section.held->end();
}

TEST_F(Drain, D2_WhatWaitsAtAViewThatIsDetachedIsTurnedAway) {
  test::Disk& disk = this->disk("disk", 512);
  test::View& view = writer(disk);
  Section section;
  drain(disk, section);
  const auto reading = start_read(view, {0, 1});
  const auto writing = start_write(view, 0, "x");
  const auto flushing = start(view.flush());
  settle();

  EXPECT_OK(detach(view));
  settle();

  EXPECT_EQ(reading->error(), Errc::shutting_down);
  EXPECT_EQ(writing->error(), Errc::shutting_down);
  EXPECT_EQ(flushing->error(), Errc::shutting_down);
  EXPECT_EQ(disk.script.count("write"), 0U);
  section.held->end();
}

TEST_F(Drain, D3_AFailingRequestEndsItsDrainToo) {
  test::Disk& disk = this->disk("disk", 512);
  test::View& view = reader(disk);
  disk.script.hold("read");
  disk.script.fail("read", Errc::io_error);
  const auto request = start_read(view, {0, 1});
  settle();

  Section section;
  drain(disk, section);
  disk.script.release();
  settle();

  EXPECT_EQ(request->error(), Errc::io_error);
  ASSERT_TRUE(section.held.has_value());
  section.held->end();
}

TEST_F(Drain, D4_ViewsThatShareNoNodeGoOn) {
  test::Disk& disk = this->disk("disk", 512);
  test::Disk& stranger = this->disk("stranger", 512);
  reader(disk);
  test::View& other = reader(stranger);
  test::Pass& below = filter("beside", disk);  // a parent of the node that nobody uses
  (void)below;

  Section section;
  drain(disk, section);

  EXPECT_OK(read(other, {0, 1}));
  EXPECT_FALSE(other.drained());
  section.held->end();
}

TEST_F(Drain, D4_ViewsOfWhatIsBelowGoOn) {
  test::Disk& disk = this->disk("disk", 512);
  test::Pass& top = filter("top", disk);
  reader(top);
  test::View& below = reader(disk);

  Section section;
  drain(top, section);

  EXPECT_OK(read(below, {0, 1}));
  section.held->end();
}

Task<> drain_once(graph::Node& node) {
  const DrainedSection section = co_await DrainedSection::begin(node);
  co_return ok;
}

// What another graph of the same worker may be asked meanwhile.
Task<> live(graph::Graph& graph) {
  Options options;
  options.set("driver", OptionValue{std::string("memory"), {}});
  CO_TRY(auto node, co_await graph.add("disk", options));
  Options over;
  over.set("driver", OptionValue{std::string("pass"), {}});
  over.set("file", OptionValue{std::string("disk"), {}});
  CO_TRY(auto filter, co_await graph.add("filter", over));
  ViewOptions wanted("export 'other'");
  wanted.access.taken = graph::Permission::consistent_read | graph::Permission::write;
  CO_TRY(auto view, co_await graph.attach(node, wanted));
  const std::string text = "text";
  const ConstBuffers data(bytes_of(std::string_view(text)));
  CO_CHECK(co_await view->write(0, data));
  CO_CHECK(co_await graph.insert_filter(filter, node));
  CO_CHECK(co_await view->flush());
  CO_CHECK(co_await graph.bypass_filter(filter));
  CO_CHECK(co_await graph.detach(std::move(view)));
  filter.reset();
  node.reset();
  co_return co_await graph.close();
}

TEST_F(Drain, D4_ADrainThatIsHeldUpStallsNoOtherGraphOfTheWorker) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    test::Bench bench(seed);
    test::Disk& stuck = bench.disk("stuck", 512);
    test::Pass& spare = bench.filter("spare", stuck);
    test::View& view = bench.writer(stuck);
    stuck.script.hold("write");
    constexpr std::array drivers{&graph::memory_driver, &test::pass_driver};
    graph::Graph other(bench.world.home, drivers);

    const auto writing = bench.start_write(view, 0, "x");
    bench.settle();

    // a drain and a change that wants one, both held up by the request
    const auto draining = bench.start(drain_once(stuck));
    const auto changing =
        bench.start(bench.graph.insert_filter(bench.shared(spare), bench.shared(stuck)));
    const auto living = bench.start(live(other));
    bench.settle();

    EXPECT_TRUE(living->succeeded()) << "seed " << seed;
    EXPECT_FALSE(writing->done() || draining->done() || changing->done()) << "seed " << seed;
    stuck.script.release();
    bench.settle();
    ASSERT_TRUE(writing->succeeded() && draining->succeeded() && changing->succeeded());
  }
}

Task<> drain_often(graph::Node& node, sim::World& world, unsigned times) {
  for (unsigned i = 0; i < times; ++i) {
    DrainedSection section = co_await DrainedSection::begin(node);
    const auto timer =
        world.clock.timer(Clock::Duration(static_cast<std::int64_t>(world.scheduler.choose(3))));
    (void)co_await timer->wait();
    section.end();
  }
  co_return ok;
}

Task<> change_often(graph::Graph& graph, std::shared_ptr<graph::Node> filter,
                    std::shared_ptr<graph::Node> below, unsigned times) {
  for (unsigned i = 0; i < times; ++i) {
    CO_CHECK(co_await graph.insert_filter(filter, below));
    CO_CHECK(co_await graph.bypass_filter(filter));
  }
  co_return ok;
}

Task<> write_often(test::View& view, std::uint64_t first, unsigned times) {
  const std::string mark = "x";
  const ConstBuffers data(bytes_of(std::string_view(mark)));
  for (unsigned i = 0; i < times; ++i) CO_CHECK(co_await view.write(first + i, data));
  co_return ok;
}

Task<> come_and_go(graph::Graph& graph, std::shared_ptr<graph::Node> node, unsigned times) {
  for (unsigned i = 0; i < times; ++i) {
    CO_TRY(auto view, co_await graph.attach(node, ViewOptions("export 'guest'")));
    std::string text(1, '?');
    const Buffers out(std::as_writable_bytes(std::span(text)));
    CO_CHECK(co_await view->read(0, out));
    CO_CHECK(co_await graph.detach(std::move(view)));
  }
  co_return ok;
}

// Two that drain overlapping parts of a graph, a third that changes it, and I/O that goes on: all
// end.
TEST_F(Drain, D5_OverlappingDrainsChangesAndRequestsAllEndUnderEverySchedule) {
  for (std::uint64_t seed = 0; seed < 10'000; ++seed) {
    test::Bench bench(seed);
    test::Disk& common = bench.disk("common", 64);
    test::Pass& left = bench.filter("left", common);
    test::Pass& right = bench.filter("right", common);
    test::Pass& spare = bench.filter("spare", common);
    test::View& left_view = bench.writer(left);
    test::View& right_view = bench.writer(right);
    common.script.dawdle(bench.world.scheduler, 2);

    std::vector<std::shared_ptr<test::Started<>>> all;
    all.push_back(bench.start(write_often(left_view, 0, 8)));
    all.push_back(bench.start(write_often(right_view, 8, 8)));
    all.push_back(bench.start(drain_often(common, bench.world, 3)));
    all.push_back(bench.start(drain_often(left, bench.world, 3)));
    all.push_back(
        bench.start(change_often(bench.graph, bench.shared(spare), bench.shared(common), 2)));
    all.push_back(bench.start(come_and_go(bench.graph, bench.shared(right), 2)));
    bench.settle();

    for (const auto& each : all) {
      ASSERT_TRUE(each->succeeded()) << "seed " << seed;
    }
    ASSERT_EQ(common.content.substr(0, 16), std::string(16, 'x')) << "seed " << seed;
    ASSERT_FALSE(left_view.drained() || right_view.drained()) << "seed " << seed;
  }
}

TEST_F(Drain, D6_EverythingMeansTheViewsOfAllNodes) {
  test::View& one = reader(disk("one", 512));
  test::View& two = reader(disk("two", 512));

  const auto all = [](graph::Graph& of) -> Task<> {
    const DrainedSection section = co_await DrainedSection::begin(of.nodes());
    for (const auto* node : of.nodes()) {
      for (const auto* edge : node->parents()) EXPECT_TRUE(edge->parent()->as_view()->drained());
    }
    co_return ok;
  };
  EXPECT_OK(run(all(graph)));

  EXPECT_FALSE(one.drained() || two.drained());
}

}  // namespace
