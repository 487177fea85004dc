// raw: the bytes of another node, or a window of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/graph_fixture.h"

namespace {

using test::code_of;
using test::message_of;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class Raw : public test::GraphTest {
 protected:
  graph::Node& window(std::string offset, std::string size) {
    return add("raw", {{"driver", "raw"}, {"file", "file"}, {"offset", offset}, {"size", size}});
  }
};

TEST_F(Raw, ShowsTheWholeNodeAndGrowsWithIt) {
  test::Disk& file = disk("file", "0123");
  graph::Node& raw = add("raw", {{"driver", "raw"}, {"file", "file"}});
  test::View& owner = grower(raw);

  EXPECT_EQ(read(owner, {0, 4}), "0123");
  EXPECT_OK(write(owner, 4, "45"));
  EXPECT_EQ(file.content, "012345");
  EXPECT_EQ(raw.size(), 6U);
  EXPECT_OK(run(owner.resize(3)));
  EXPECT_EQ(file.content, "012");
}

TEST_F(Raw, AWindowShiftsEveryRequest) {
  test::Disk& file = disk("file", "0123456789");
  file.wants.native_zeroes = true;
  refresh();
  test::View& view = writer(window("2", "6"));

  EXPECT_EQ(read(view, {1, 2}), "34");
  EXPECT_OK(write(view, 0, "a"));
  EXPECT_OK(zero(view, {1, 1}));
  EXPECT_OK(discard(view, {2, 1}));
  EXPECT_OK(run(view.prefetch({3, 1})));

  EXPECT_THAT(file.script.calls,
              ElementsAre("read 3+2", "write 2+1", "zeroes 3+1", "discard 4+1", "prefetch 5+1"));
}

TEST_F(Raw, AWindowNeverGrows) {
  test::Disk& file = disk("file", "0123456789");
  graph::Node& raw = window("2", "6");
  test::View& owner = grower(raw);

  EXPECT_EQ(code_of(write(owner, 5, "xy")), Errc::no_space);
  EXPECT_EQ(code_of(zero(owner, {6, 1})), Errc::no_space);
  EXPECT_EQ(code_of(run(owner.resize(8))), Errc::not_supported);
  EXPECT_EQ(file.content, "0123456789");
  EXPECT_EQ(raw.growth(), graph::Growth::never);
}

TEST_F(Raw, AnOffsetAloneGrows) {
  test::Disk& file = disk("file", "0123");
  graph::Node& raw = add("raw", {{"driver", "raw"}, {"file", "file"}, {"offset", "2"}});
  test::View& owner = grower(raw);

  EXPECT_EQ(raw.size(), 2U);
  EXPECT_OK(write(owner, 2, "x"));
  EXPECT_EQ(file.content, "0123x");
  EXPECT_OK(run(owner.resize(1)));
  EXPECT_EQ(file.content, "012");
}

TEST_F(Raw, AWindowThatLeavesTheNodeIsRefused) {
  disk("file", "0123");
  Options options;
  options.set("driver", OptionValue{std::string("raw"), {}});
  options.set("file", OptionValue{std::string("file"), {}});
  options.set("offset", OptionValue{std::string("2"), {}});
  options.set("size", OptionValue{std::string("3"), Position{"disk.toml", 4, 1}});

  const auto refused = run(graph.add("raw", options));

  EXPECT_EQ(code_of(refused), Errc::invalid_argument);
  EXPECT_EQ(message_of(refused),
            "disk.toml:4:1: raw: raw: the window of 3 bytes at 2 leaves node 'file' of 4 bytes");
  EXPECT_THAT(graph.find("file")->parents(), IsEmpty());
}

TEST_F(Raw, TheFileCantShrinkBelowAWindow) {
  test::Disk& file = disk("file", 512);
  window("100", "200");
  test::View& owner = grower(file);

  const auto refused = run(owner.resize(299));

  EXPECT_EQ(code_of(refused), Errc::busy);
  EXPECT_THAT(message_of(refused), HasSubstr("node 'raw' shows node 'file' up to byte 300"));
  EXPECT_OK(run(owner.resize(300)));
}

TEST_F(Raw, AnErrorCountsFromTheFirstByteOfTheWindow) {
  test::Disk& file = disk("file", 512);
  test::View& view = writer(window("100", "200"));
  file.script.break_down("", Errc::io_error);

  EXPECT_EQ(read(view, {7, 1}).error().offset, 7U);
  EXPECT_EQ(write(view, 8, "x").error().offset, 8U);
  EXPECT_EQ(zero(view, {9, 1}).error().offset, 9U);
  EXPECT_EQ(discard(view, {10, 1}).error().offset, 10U);
}

TEST_F(Raw, MapsToTheFileItself) {
  test::Disk& file = disk("file", 512);
  test::View& view = reader(window("100", "200"));

  const auto extents = run(const_cast<graph::Edge&>(view.edge()).map({10, 20}));

  ASSERT_OK(extents);
  ASSERT_EQ(extents->list.size(), 1U);
  EXPECT_EQ(extents->list[0].offset, 110U);
  EXPECT_EQ(&extents->list[0].via->node(), &file);
}

TEST_F(Raw, TakesOnlyWhatItsUsersTakeSoThatTwoMayWrite) {
  disk("file", 512);
  graph::Node& raw = window("0", "100");
  writer(raw);
  EXPECT_OK(try_view(*graph.find("file"), graph::ViewOptions("export 'r'")));
  writer(*graph.find("file"), "export 'second writer'");
  EXPECT_EQ(raw.child("file")->access(), raw.cumulative_access());
}

// The neighbours of an unaligned window in the same unit of the medium.
TEST_F(Raw, PaddingTouchesNothingOutsideOfTheWindow) {
  test::Disk& file = disk("file", 1024);
  file.wants.request_alignment = 512;
  refresh();
  test::View& view = writer(window("100", "200"));

  EXPECT_OK(write(view, 0, std::string(200, 'x')));

  EXPECT_EQ(file.content, std::string(100, '.') + std::string(200, 'x') + std::string(724, '.'));
}

}  // namespace
