// The case that started it all: who checks the range? A view owns its range; the right to grow
// lives on the edge.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "graph/request_path.h"
#include "tests/support/graph_fixture.h"

namespace {

using graph::Growth;
using graph::Permission;
using graph::ViewOptions;
using test::code_of;
using test::message_of;
using testing::ElementsAre;
using testing::IsEmpty;

class Border : public test::GraphTest {
 protected:
  graph::Node& raw(std::string name, graph::Node& file) {
    return add(std::move(name), {{"driver", "raw"}, {"file", file.name()}});
  }
};

TEST_F(Border, AnExportCantWritePastItsEndWhileAnotherViewOfTheSameNodeGrowsIt) {
  test::Disk& file = disk("file", 512);
  test::View& guest = writer(file);
  test::View& owner = grower(file);

  const auto guest_wrote = write(guest, 512, "g");
  EXPECT_EQ(code_of(guest_wrote), Errc::out_of_range);
  EXPECT_THAT(file.script.take(), IsEmpty());
  EXPECT_EQ(file.content, std::string(512, '.'));

  EXPECT_OK(write(owner, 512, "o"));
  EXPECT_EQ(file.content.size(), 513U);
  EXPECT_EQ(owner.size(), 513U);
  EXPECT_EQ(guest.size(), 512U);

  file.script.take();
  EXPECT_EQ(code_of(write(guest, 512, "g")), Errc::out_of_range);
  EXPECT_EQ(code_of(read(guest, {512, 1})), Errc::out_of_range);
  EXPECT_THAT(file.script.calls, IsEmpty());
  EXPECT_EQ(file.content.back(), 'o');
}

TEST_F(Border, ARawNodeStaysTheSizeOfItsExportAndGrowsUnderAFormat) {
  test::Disk& file = disk("file", 512);
  graph::Node& raw = this->raw("raw", file);
  test::View& guest = reader(raw);
  test::Pass& pass = filter("pass", raw);
  test::Table& format = this->format("format", pass, 4096);
  format.data_start = 1024;

  test::View& user = writer(format);
  EXPECT_OK(write(user, 0, "data"));

  EXPECT_EQ(file.content.size(), 1028U);
  EXPECT_EQ(file.content.substr(1024), "data");
  EXPECT_EQ(raw.size(), 1028U);
  EXPECT_EQ(guest.size(), 512U);
  EXPECT_EQ(code_of(read(guest, {512, 1})), Errc::out_of_range);
  EXPECT_OK(read(guest, {511, 1}));
}

TEST_F(Border, TheSameWriteThroughAnEdgeWithoutTheRightToResizeIsOutOfRangeAndCounted) {
  test::Disk& file = disk("file", 512);
  graph::Node& raw = this->raw("raw", file);
  test::Pass& pass = filter("pass", raw);
  writer(pass);  // takes no resize

  const std::string text = "data";
  const ConstBuffers data(bytes_of(std::string_view(text)));
  const auto wrote = run(pass.file().write(1024, data));

  EXPECT_EQ(code_of(wrote), Errc::out_of_range);
  EXPECT_EQ(raw.refused_growth, 1U);
  EXPECT_EQ(file.content.size(), 512U);
}

TEST_F(Border, EveryRangeThatIsNotInsideIsOutOfRangeAndNoNodeSeesIt) {
  test::Disk& file = disk("file", 512);
  test::View& view = writer(file);
  constexpr std::uint64_t max = std::numeric_limits<std::uint64_t>::max();
  const std::uint64_t negative = std::uint64_t{1} << 63;
  const Range outside[] = {{512, 1},      {511, 2},        {513, 0},   {0, 513},
                           {max, 1},      {max, 2},        {max, 0},   {max - 7, 16},
                           {negative, 1}, {negative, 512}, {511, max}, {1, max}};

  for (const Range range : outside) {
    EXPECT_EQ(code_of(run(view.write_zeroes(range))), Errc::out_of_range) << range.offset;
    EXPECT_EQ(code_of(run(view.discard(range))), Errc::out_of_range) << range.offset;
    EXPECT_EQ(code_of(run(view.prefetch(range))), Errc::out_of_range) << range.offset;
    if (range.length > 0) {
      EXPECT_EQ(code_of(run(view.block_status(range, graph::MapDepth::zeroes, 1))),
                Errc::out_of_range)
          << range.offset;
    }
    if (range.length > 4096) continue;
    EXPECT_EQ(code_of(read(view, range)), Errc::out_of_range) << range.offset;
    EXPECT_EQ(code_of(write(view, range.offset, std::string(range.length, 'x'))),
              Errc::out_of_range)
        << range.offset;
  }
  EXPECT_THAT(file.script.calls, IsEmpty());
}

TEST_F(Border, NothingAtTheVeryEndIsLegalAndDoesNothing) {
  test::Disk& file = disk("file", 512);
  test::View& view = writer(file);

  EXPECT_OK(read(view, {512, 0}));
  EXPECT_OK(write(view, 512, ""));
  EXPECT_OK(zero(view, {512, 0}));
  EXPECT_OK(discard(view, {512, 0}));
  EXPECT_OK(run(view.prefetch({512, 0})));

  EXPECT_THAT(file.script.calls, IsEmpty());
}

TEST_F(Border, AWriteToAReadOnlyViewIsReadOnlyBeforeItIsOutOfRange) {
  test::Disk& file = disk("file", 512);
  test::View& view = reader(file, "export 'e'");

  EXPECT_EQ(code_of(write(view, 0, "x")), Errc::read_only);
  EXPECT_EQ(code_of(write(view, 600, "x")), Errc::read_only);
  EXPECT_EQ(code_of(zero(view, {0, 1})), Errc::read_only);
  EXPECT_EQ(code_of(discard(view, {0, 1})), Errc::read_only);
  EXPECT_EQ(message_of(write(view, 0, "x")), "export 'e' is read-only");
  EXPECT_THAT(file.script.calls, IsEmpty());
}

TEST_F(Border, AnErrorOfTheMediumInRangeIsAnIoErrorAtItsByte) {
  test::Disk& file = disk("file", 512);
  ViewOptions options("export 'window'");
  options.window = Range{100, 200};
  options.access.taken = Permission::consistent_read | Permission::write;
  test::View& view = this->view(file, std::move(options));
  file.script.break_down("", Errc::io_error);

  const auto got = read(view, {10, 20});
  const auto wrote = write(view, 30, "x");

  EXPECT_EQ(code_of(got), Errc::io_error);
  EXPECT_EQ(got.error().offset, 10U);
  EXPECT_EQ(got.error().node, "file");
  EXPECT_EQ(code_of(wrote), Errc::io_error);
  EXPECT_EQ(wrote.error().offset, 30U);
}

TEST_F(Border, AWindowShowsItsBytesAndNoOthers) {
  test::Disk& file = disk("file", "0123456789");
  ViewOptions options("export 'window'");
  options.window = Range{3, 4};
  options.access.taken = Permission::consistent_read | Permission::write;
  test::View& view = this->view(file, std::move(options));

  EXPECT_EQ(view.size(), 4U);
  EXPECT_EQ(read(view, {0, 4}), "3456");
  EXPECT_EQ(code_of(read(view, {0, 5})), Errc::out_of_range);
  EXPECT_OK(write(view, 3, "x"));
  EXPECT_OK(zero(view, {0, 1}));
  EXPECT_OK(discard(view, {1, 1}));
  EXPECT_EQ(file.content, (std::string{'0', '1', '2', 0, 0, '5', 'x', '7', '8', '9'}));
}

TEST_F(Border, AWindowThatLeavesTheNodeIsRefused) {
  test::Disk& file = disk("file", 512);
  for (const Range window : {Range{512, 1}, Range{0, 513}, Range{~std::uint64_t{0}, 2}}) {
    ViewOptions options("export 'e'");
    options.window = window;
    EXPECT_EQ(code_of(try_view(file, std::move(options))), Errc::invalid_argument);
  }
}

TEST_F(Border, NobodyShrinksANodeBelowTheEndOfAFixedViewWhichTheRefusalNames) {
  test::Disk& file = disk("file", 512);
  graph::Node& raw = this->raw("raw", file);
  ViewOptions options("export 'boot'");
  options.window = Range{0, 300};
  view(raw, std::move(options));
  test::View& owner = grower(file);

  const auto refused = run(owner.resize(299));
  EXPECT_EQ(code_of(refused), Errc::busy);
  EXPECT_EQ(message_of(refused),
            "export 'boot' uses node 'raw' up to byte 300, it can't become 299 bytes long");
  EXPECT_EQ(file.content.size(), 512U);

  EXPECT_OK(run(owner.resize(300)));
  EXPECT_OK(run(owner.resize(1000)));
  EXPECT_EQ(file.content.size(), 1000U);
}

TEST_F(Border, AFixedViewCantResize) {
  test::Disk& file = disk("file", 512);
  EXPECT_EQ(code_of(run(writer(file).resize(1024))), Errc::permission_denied);
  EXPECT_THAT(file.script.calls, IsEmpty());
}

TEST_F(Border, AGrowableViewGrowsToNoSizeThatArithmeticCantBear) {
  test::Disk& file = disk("file", 512);
  file.wants.request_alignment = 512;
  refresh();
  test::View& owner = grower(file);

  EXPECT_EQ(code_of(write(owner, ~std::uint64_t{0} - 100, "x")), Errc::out_of_range);
  EXPECT_EQ(code_of(write(owner, (std::uint64_t{1} << 63) - 1, "x")), Errc::out_of_range);
  EXPECT_EQ(code_of(zero(owner, {~std::uint64_t{0} - 100, 50})), Errc::out_of_range);
  EXPECT_EQ(code_of(run(owner.resize(~std::uint64_t{0}))), Errc::out_of_range);
  EXPECT_THAT(file.script.calls, IsEmpty());
}

TEST_F(Border, GrowthIsAskedThroughChains) {
  test::Disk& file = disk("file", 512);
  graph::Node& raw = this->raw("raw", file);
  test::Pass& pass = filter("pass", raw);
  EXPECT_EQ(pass.growth(), Growth::as_child);
  EXPECT_TRUE(pass.can_grow());

  file.grows = Growth::never;
  EXPECT_FALSE(pass.can_grow());
  EXPECT_FALSE(raw.can_grow());

  graph::Node& window = add("window", {{"driver", "raw"}, {"file", "file"}, {"size", "100"}});
  file.grows = Growth::yes;
  EXPECT_FALSE(window.can_grow());
}

TEST_F(Border, AFormatOnANodeThatNeverGrowsIsLegalAndGetsOneWarning) {
  test::Disk& device = disk("device", 512);
  device.grows = Growth::never;
  graph::Node& raw = this->raw("raw", device);
  test::Pass& inner = filter("inner", raw);
  test::Table& format = this->format("format", inner, 4096);
  test::Pass& outer = filter("outer", format);

  test::View& first = writer(outer);
  writer(outer, "export 'second'");

  EXPECT_THAT(world.log.warnings,
              ElementsAre("format: node 'inner' can't grow: write operations may fail with ENOSPC "
                          "when the image file needs to grow"));
  EXPECT_EQ(code_of(write(first, 1024, "x")), Errc::no_space);
}

TEST_F(Border, ThereIsNoWarningWhereNothingMustGrow) {
  test::Disk& device = disk("device", 512);
  device.grows = Growth::never;
  writer(raw("raw", device));
  EXPECT_THAT(world.log.warnings, IsEmpty());
}

TEST_F(Border, AnAlignmentIsOfferedThatTouchesNoOtherBytes) {
  test::Disk& file = disk("file", 10000);
  file.wants.request_alignment = 512;
  refresh();
  const auto alignment_of = [&](Range window) {
    ViewOptions options("export 'e'");
    options.window = window;
    return view(file, std::move(options)).alignment();
  };

  EXPECT_EQ(alignment_of({512, 1024}), 512U);
  EXPECT_EQ(alignment_of({256, 1024}), 256U);
  EXPECT_EQ(alignment_of({0, 10000}), 16U);
  EXPECT_EQ(alignment_of({0, 99}), 1U);
}

}  // namespace
