// The view as its user sees it; the border itself is in border_test.cpp, drain in drain_test.cpp.
#include "graph/block_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/graph_fixture.h"

namespace {

using graph::BlockBackend;
using graph::Permission;
using graph::ViewOptions;
using test::code_of;
using testing::ElementsAre;
using testing::IsEmpty;

class View : public test::GraphTest {};

TEST_F(View, ReadsAndWritesWhatTheNodeHolds) {
  test::Disk& disk = this->disk("disk", "0123456789");
  test::View& view = writer(disk);

  EXPECT_EQ(read(view, {3, 4}), "3456");
  EXPECT_OK(write(view, 4, "xy"));

  EXPECT_EQ(disk.content, "0123xy6789");
  EXPECT_THAT(disk.script.calls, ElementsAre("read 3+4", "write 4+2"));
}

TEST_F(View, AnswersItsFrontEndBeforeAnyWorkIsDone) {
  test::Disk& disk = this->disk("disk", 512);
  test::View& view = reader(disk);

  EXPECT_OK(view.check(BlockBackend::Intent::read, {0, 512}));
  EXPECT_EQ(code_of(view.check(BlockBackend::Intent::read, {1, 512})), Errc::out_of_range);
  EXPECT_EQ(code_of(view.check(BlockBackend::Intent::write, {0, 1})), Errc::read_only);
  EXPECT_FALSE(view.writable());
}

TEST_F(View, PrefetchesByReadingWhereTheNodeKnowsNothingBetter) {
  test::Disk& disk = this->disk("disk", 3 * MiB);
  test::View& view = reader(disk);

  EXPECT_OK(run(view.prefetch({100, 2 * MiB})));
  EXPECT_THAT(disk.script.take(), ElementsAre("prefetch 100+2097152"));
  disk.script.break_down("prefetch", Errc::not_supported);
  EXPECT_OK(run(view.prefetch({100, 2 * MiB})));
  EXPECT_THAT(disk.script.take(),
              ElementsAre("prefetch 100+2097152", "read 100+1048576", "read 1048676+1048576"));
}

TEST_F(View, CountsWhatIsInside) {
  test::Disk& disk = this->disk("disk", 512);
  test::View& view = reader(disk);
  disk.script.hold("read");

  start_read(view, {0, 1});
  start_read(view, {1, 1});
  settle();
  EXPECT_EQ(view.in_flight(), 2U);

  disk.script.release();
  settle();
  EXPECT_EQ(view.in_flight(), 0U);
}

TEST_F(View, DetachingWaitsForWhatIsInside) {
  test::Disk& disk = this->disk("disk", 512);
  test::View& view = writer(disk);
  disk.script.hold("write");
  const auto writing = start_write(view, 0, "x");
  settle();

  auto held = std::move(views.back());
  views.pop_back();
  const auto detaching = start(graph.detach(std::move(held)));
  settle();
  EXPECT_FALSE(detaching->done());
  disk.script.release();
  settle();

  EXPECT_TRUE(writing->succeeded() && detaching->succeeded());
  EXPECT_THAT(disk.parents(), IsEmpty());
}

TEST_F(View, OfAGrowableKindFollowsTheSizeOfItsNode) {
  test::Disk& disk = this->disk("disk", 512);
  test::View& one = grower(disk);
  test::View& two = grower(disk);

  EXPECT_OK(run(one.resize(2048)));
  EXPECT_EQ(two.size(), 2048U);
  EXPECT_OK(write(two, 4096, "x"));

  EXPECT_EQ(one.size(), 4097U);
}

TEST_F(View, OfAGrowableKindWithoutTheRightToResizeIsHeldToTheSizeOfTheNode) {
  test::Disk& disk = this->disk("disk", 512);
  ViewOptions options("job 'j'");
  options.policy = graph::RangePolicy::growable;
  options.access.taken = Permission::consistent_read | Permission::write;
  test::View& view = this->view(disk, std::move(options));

  EXPECT_EQ(code_of(write(view, 512, "x")), Errc::out_of_range);
  EXPECT_EQ(code_of(run(view.resize(1024))), Errc::permission_denied);
  EXPECT_THAT(disk.script.calls, IsEmpty());
}

}  // namespace
