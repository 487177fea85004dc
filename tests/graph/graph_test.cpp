// Rules G-1 to G-4, G-7: how a graph comes to be, changes, and ends.
#include "graph/graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "graph/transaction.h"
#include "tests/support/graph_fixture.h"

namespace {

using graph::Permission;
using graph::Role;
using graph::Transaction;
using graph::ViewOptions;
using test::code_of;
using test::message_of;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

OptionValue text(std::string value) { return OptionValue{std::move(value), {}}; }

Options memory() {
  Options options;
  options.set("driver", text("memory"));
  options.set("size", text("1M"));
  return options;
}

Options pass_over(Options child) {
  Options options;
  options.set("driver", text("pass"));
  options.set("file", OptionValue{std::make_shared<Options>(std::move(child)), {}});
  return options;
}

class Graph : public test::GraphTest {};

TEST_F(Graph, G1_ANodeIsNotBelowItself) {
  test::Disk& disk = this->disk("disk", 512);
  test::Pass& lower = filter("lower", disk);
  test::Pass& upper = filter("upper", lower);

  Transaction change(graph);
  change.replace_child(lower.file(), shared(upper));
  const auto done = run(change.commit());

  EXPECT_EQ(code_of(done), Errc::invalid_argument);
  EXPECT_EQ(message_of(done), "node 'upper' can't be a child of node 'lower': it is above it");
  EXPECT_EQ(&lower.file().node(), &disk);
}

TEST_F(Graph, G1_ANodeHasOneBackingChildAtMostAndOnlyFiltersHaveFilteredOnes) {
  test::Disk& a = disk("a", 512);
  test::Disk& b = disk("b", 512);
  EXPECT_EQ(code_of(try_table("t", a, Role::backing, &b, Role::backing, 512, {})),
            Errc::invalid_argument);
  EXPECT_EQ(code_of(try_table("t", a, Role::filtered, nullptr, Role::image, 512, {})),
            Errc::invalid_argument);

  auto odd = std::make_unique<test::Pass>(graph::Edge("file", Role::image, shared(a)));
  EXPECT_EQ(code_of(run(graph.insert("odd", test::test_driver, {}, std::move(odd)))),
            Errc::invalid_argument);

  EXPECT_EQ(graph.find("t"), nullptr);
  EXPECT_THAT(a.parents(), IsEmpty());
}

TEST_F(Graph, G2_ANodeIsNamedByALetterAndUpToThirtyMoreOfAFew) {
  const std::string longest = "a" + std::string(30, '9');
  for (const std::string& good : {std::string("a"), std::string("Z.-_9"), longest}) {
    EXPECT_OK(run(graph.add(good, memory())));
  }
  for (const std::string& bad : {std::string("9a"), std::string("-a"), std::string("#a"),
                                 std::string("a b"), std::string("\xc3\xa4"), longest + "9"}) {
    EXPECT_EQ(code_of(run(graph.add(bad, memory()))), Errc::invalid_argument) << bad;
  }
}

TEST_F(Graph, G2_ANameIsGivenOnce) {
  EXPECT_OK(run(graph.add("disk", memory())));
  EXPECT_EQ(code_of(run(graph.add("disk", memory()))), Errc::invalid_argument);
  auto built = std::make_unique<test::Disk>("");
  EXPECT_EQ(code_of(run(graph.insert("disk", test::test_driver, {}, std::move(built)))),
            Errc::invalid_argument);
}

// The second one finds the name free, and taken once it is open.
TEST_F(Graph, G2_ANameIsGivenOnceToThoseWhoAskAtTheSameTimeToo) {
  test::Disk& disk = this->disk("disk", 512);
  test::View& view = reader(disk);
  disk.script.hold("read");
  const auto reading = start_read(view, {0, 1});  // who attaches to `disk` waits for this
  settle();
  Options options;
  options.set("driver", text("pass"));
  options.set("file", text("disk"));

  const auto first = start(graph.add("twin", options));
  const auto second = start(graph.add("twin", options));
  settle();
  disk.script.release();
  settle();

  EXPECT_NE(first->succeeded(), second->succeeded());
  EXPECT_EQ(disk.parents().size(), 2U);  // the view and one of them
}

TEST_F(Graph, G2_NodesWithoutANameGetOneThatNobodyCanSay) {
  const auto over = run(graph.add("over", pass_over(memory())));
  ASSERT_OK(over);
  const std::string hidden = (*over)->child("file")->node().name();

  EXPECT_EQ(hidden.substr(0, 6), "#block");
  EXPECT_GE(hidden.size(), 9U);
  EXPECT_EQ(code_of(run(graph.remove(hidden))), Errc::invalid_argument);
}

TEST_F(Graph, G3_AnEdgeChangesWhenTheRequestsOfBothSidesHaveEndedAndNoneBegins) {
  test::Disk& old_disk = disk("old", std::string(512, 'o'));
  test::Disk& new_disk = disk("new", std::string(512, 'n'));
  test::Pass& filter = this->filter("filter", old_disk);
  test::View& above_old = reader(filter);
  test::View& above_new = reader(new_disk);
  old_disk.script.hold("read");
  new_disk.script.hold("read");

  const auto before = start_read(above_old, {0, 1});
  const auto beside = start_read(above_new, {0, 1});
  settle();
  Transaction change(graph);
  change.replace_child(filter.file(), shared(new_disk));
  const auto changing = start(change.commit());
  settle();
  EXPECT_FALSE(changing->done());
  const auto after = start_read(above_old, {1, 1});
  settle();
  EXPECT_EQ(old_disk.script.count("read"), 1U);

  old_disk.script.release();
  settle();
  EXPECT_FALSE(changing->done()) << "the new child's users still read";
  new_disk.script.release();
  settle();

  EXPECT_TRUE(before->succeeded() && beside->succeeded() && changing->succeeded());
  EXPECT_TRUE(after->succeeded());
  EXPECT_THAT(old_disk.script.calls, ElementsAre("read 0+1"));
  EXPECT_THAT(new_disk.script.calls, ElementsAre("read 0+1", "read 1+1"));
}

TEST_F(Graph, G3_AFilterIsInsertedUnderEveryUserAndTakenOutAgain) {
  test::Disk& disk = this->disk("disk", 512);
  test::Pass& above = filter("above", disk);
  test::View& one = writer(disk, "export 'one'");
  test::View& two = writer(above, "export 'two'");
  test::Pass& spy = filter("spy", disk);

  EXPECT_OK(run(graph.insert_filter(shared(spy), shared(disk))));
  EXPECT_OK(write(one, 0, "1"));
  EXPECT_OK(write(two, 1, "2"));
  EXPECT_THAT(spy.script.take(), ElementsAre("write 0+1", "write 1+1"));
  EXPECT_EQ(disk.parents().size(), 1U);
  EXPECT_TRUE(spy.file().may(Permission::write));

  EXPECT_OK(run(graph.bypass_filter(shared(spy))));
  EXPECT_OK(write(one, 2, "3"));
  EXPECT_THAT(spy.script.calls, IsEmpty());
  EXPECT_FALSE(spy.file().may(Permission::write));
  EXPECT_EQ(disk.content.substr(0, 3), "123");
}

TEST_F(Graph, G3_AUserWhoComesWhileAFilterIsInsertedGoesThroughItToo) {
  test::Disk& disk = this->disk("disk", 512);
  test::View& first = writer(disk);
  test::Pass& spy = filter("spy", disk);
  disk.script.hold("read");
  const auto reading = start_read(first, {0, 1});
  settle();

  const auto inserting = start(graph.insert_filter(shared(spy), shared(disk)));
  settle();
  const auto attaching = start(graph.attach(shared(disk), ViewOptions("export 'late'")));
  settle();
  disk.script.release();
  settle();

  ASSERT_TRUE(inserting->succeeded() && attaching->succeeded());
  views.push_back(std::move(**attaching->result));
  // who came after the change was asked for uses what it asked for: the node itself, or the filter
  // over it
  EXPECT_OK(write(first, 0, "x"));
  EXPECT_THAT(spy.script.calls, ElementsAre("write 0+1"));
}

TEST_F(Graph, G3_AUserWhoLeavesWhileAFilterIsInsertedIsNotWaitedForTwice) {
  test::Disk& disk = this->disk("disk", 512);
  test::View& stays = writer(disk);
  reader(disk, "export 'leaves'");
  test::Pass& spy = filter("spy", disk);
  disk.script.hold("read");
  const auto reading = start_read(stays, {0, 1});
  settle();
  auto leaving_view = std::move(views.back());
  views.pop_back();

  const auto inserting = start(graph.insert_filter(shared(spy), shared(disk)));
  settle();
  const auto leaving = start(graph.detach(std::move(leaving_view)));
  settle();
  disk.script.release();
  settle();

  EXPECT_TRUE(inserting->succeeded() && leaving->succeeded() && reading->succeeded());
  EXPECT_EQ(disk.parents().size(), 1U);
  EXPECT_FALSE(stays.drained());
}

TEST_F(Graph, G3_AFailedChangeOfManyEdgesChangesNone) {
  test::Disk& a = disk("a", 512);
  test::Disk& b = disk("b", 512);
  graph::CommonOptions read_only;
  read_only.read_only = true;
  test::Disk& locked = disk("locked", 512, read_only);
  test::Pass& first = filter("first", a);
  test::Pass& second = filter("second", a);
  test::View& one = writer(first);
  test::View& two = writer(second);

  Transaction change(graph);
  change.replace_child(first.file(), shared(b));
  change.replace_child(first.file(), shared(a));
  change.replace_child(first.file(), shared(b));
  change.replace_child(second.file(), shared(locked));
  const auto done = run(change.commit());

  EXPECT_EQ(code_of(done), Errc::read_only);
  EXPECT_EQ(&first.file().node(), &a);
  EXPECT_EQ(&second.file().node(), &a);
  EXPECT_EQ(a.parents().size(), 2U);
  EXPECT_THAT(b.parents(), IsEmpty());
  EXPECT_THAT(locked.parents(), IsEmpty());
  EXPECT_OK(write(one, 0, "1"));
  EXPECT_OK(write(two, 1, "2"));
  EXPECT_EQ(a.content.substr(0, 2), "12");
}

TEST_F(Graph, G3_TheSameEdgeMayChangeTwiceInOneChange) {
  test::Disk& a = disk("a", 512);
  test::Disk& b = disk("b", 512);
  test::Disk& c = disk("c", 512);
  test::Pass& pass = filter("pass", a);
  test::View& view = writer(pass);

  Transaction change(graph);
  change.replace_child(pass.file(), shared(b));
  change.replace_child(pass.file(), shared(c));
  EXPECT_OK(run(change.commit()));

  EXPECT_OK(write(view, 0, "x"));
  EXPECT_EQ(c.content[0], 'x');
  EXPECT_THAT(a.parents(), IsEmpty());
  EXPECT_THAT(b.parents(), IsEmpty());
  EXPECT_EQ(a.rights.log.back(), "commit");
  EXPECT_EQ(a.cumulative_access().taken, graph::Permissions::none());
}

TEST_F(Graph, G3_ANodeIsNotReplacedByOneThatIsTooShortForAViewWhichTheRefusalNames) {
  test::Disk& large = disk("large", 512);
  test::Disk& small = disk("small", 100);
  test::Pass& pass = filter("pass", large);
  reader(pass, "export 'boot'");

  Transaction change(graph);
  change.replace_child(pass.file(), shared(small));
  const auto done = run(change.commit());

  EXPECT_EQ(code_of(done), Errc::busy);
  EXPECT_THAT(message_of(done), HasSubstr("export 'boot'"));
  EXPECT_EQ(&pass.file().node(), &large);
}

TEST_F(Graph, G3_ChangesRunOneAfterTheOtherAndAllEndUnderEverySchedule) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    test::Bench bench(seed);
    test::Disk& disk = bench.disk("disk", 512);
    test::Pass& one = bench.filter("one", disk);
    test::Pass& two = bench.filter("two", disk);
    test::View& view = bench.writer(disk);
    disk.script.dawdle(bench.world.scheduler, 3);
    std::vector<std::shared_ptr<test::Started<>>> all;
    for (std::uint64_t i = 0; i < 8; ++i) all.push_back(bench.start_write(view, i, "x"));
    all.push_back(bench.start(bench.graph.insert_filter(bench.shared(one), bench.shared(disk))));
    for (std::uint64_t i = 8; i < 16; ++i) all.push_back(bench.start_write(view, i, "x"));
    all.push_back(bench.start(bench.graph.insert_filter(bench.shared(two), bench.shared(one))));
    const auto late =
        bench.start(bench.graph.attach(bench.shared(two), ViewOptions("export 'late'")));
    bench.settle();

    for (const auto& each : all) {
      ASSERT_TRUE(each->succeeded()) << "seed " << seed;
    }
    ASSERT_TRUE(late->succeeded()) << "seed " << seed;
    bench.views.push_back(std::move(**late->result));
    ASSERT_EQ(disk.content.substr(0, 16), std::string(16, 'x'));
    ASSERT_FALSE(view.drained());
  }
}

TEST_F(Graph, G4_ANodeInUseIsNotRemoved) {
  test::Disk& q = disk("q", 512);
  filter("over", q);

  const auto refused = run(graph.remove("q"));

  EXPECT_EQ(code_of(refused), Errc::busy);
  EXPECT_EQ(message_of(refused), "Node q is in use");
  EXPECT_THAT(q.script.calls, IsEmpty());
  EXPECT_OK(run(graph.remove("over")));
  EXPECT_OK(run(graph.remove("q")));
  EXPECT_EQ(code_of(run(graph.remove("q"))), Errc::invalid_argument);
}

TEST_F(Graph, G7_ANodeIsClosedOnceItsCachesAreEmptyAndWhatGoesWrongIsSaid) {
  test::Disk& disk = this->disk("disk", 512);
  disk.close_error = Errc::io_error;

  const auto removed = run(graph.remove("disk"));

  EXPECT_THAT(disk.script.calls, ElementsAre("drop caches", "close"));
  EXPECT_EQ(code_of(removed), Errc::io_error);
  EXPECT_EQ(graph.find("disk"), nullptr);
}

TEST_F(Graph, G7_AnImplicitNodeGoesWithItsLastParent) {
  ASSERT_OK(run(graph.add("over", pass_over(pass_over(memory())))));
  EXPECT_EQ(graph.nodes().size(), 3U);

  EXPECT_OK(run(graph.remove("over")));

  EXPECT_THAT(graph.nodes(), IsEmpty());
}

TEST_F(Graph, G7_AnImplicitNodeGoesWithItsLastView) {
  auto added = run(graph.add("", memory()));
  ASSERT_OK(added);
  auto view = run(graph.attach(*std::exchange(added, nullptr), ViewOptions("export 'e'")));
  ASSERT_OK(view);
  EXPECT_EQ(graph.nodes().size(), 1U);

  EXPECT_OK(run(graph.detach(*std::move(view))));

  EXPECT_THAT(graph.nodes(), IsEmpty());
}

TEST_F(Graph, G7_AnImplicitNodeThatSomebodyIsAboutToUseStays) {
  const auto added = run(graph.add("", memory()));
  ASSERT_OK(added);
  EXPECT_OK(run(graph.reap()));
  EXPECT_EQ(graph.nodes().size(), 1U);
}

TEST_F(Graph, AFailedOpenLeavesNothingBehind) {
  test::Disk& disk = this->disk("disk", 512);
  Options fails = pass_over(memory());
  fails.set("fails", OptionValue{true, {}});
  EXPECT_EQ(code_of(run(graph.add("over", fails))), Errc::io_error);
  EXPECT_EQ(graph.nodes().size(), 1U);

  fails.set("file", text("disk"));
  EXPECT_EQ(code_of(run(graph.add("over", fails))), Errc::io_error);
  EXPECT_EQ(disk.rights.log.at(disk.rights.log.size() - 2), "prepare ");
  EXPECT_THAT(disk.parents(), IsEmpty());
}

TEST_F(Graph, AnUnknownDriverOrChildIsNamedWithItsPlace) {
  Options options;
  options.set("driver", OptionValue{std::string("memroy"), Position{"a.toml", 3, 7}});
  EXPECT_EQ(message_of(run(graph.add("m", options))),
            "a.toml:3:7: there is no driver 'memroy', did you mean 'memory'?");
  options.set("driver", text("pass"));
  options.set("file", OptionValue{std::string("nothing"), Position{"a.toml", 4, 1}});
  EXPECT_EQ(message_of(run(graph.add("m", options))), "a.toml:4:1: m: there is no node 'nothing'");
}

TEST_F(Graph, ClosingTheGraphFlushesEverythingAndClosesParentsFirst) {
  test::Disk& file = disk("file", 512);
  test::Table& top = format("top", file, 512);
  file.close_error = Errc::io_error;

  EXPECT_EQ(code_of(run(graph.close())), Errc::io_error);

  EXPECT_THAT(top.script.calls, ElementsAre("drop caches", "drop caches", "close"));
  EXPECT_THAT(file.script.calls, ElementsAre("drop caches", "flush", "drop caches", "close"));
  EXPECT_THAT(graph.nodes(), IsEmpty());
}

}  // namespace
