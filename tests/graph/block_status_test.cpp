// Rules S-1 to S-4, S-6, S-8: what a range holds, through all layers.
#include "graph/block_status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/graph_fixture.h"

namespace {

using graph::Extent;
using graph::ExtentKind;
using graph::MapDepth;
using test::code_of;
using testing::ElementsAre;
using testing::IsEmpty;

Extent piece(ExtentKind kind, std::uint64_t length) {
  Extent extent;
  extent.kind = kind;
  extent.length = length;
  return extent;
}

class BlockStatus : public test::GraphTest {};

TEST_F(BlockStatus, S1_AnswersTheWholeRangeAndNothingBeyondIt) {
  test::Disk& file = disk("file", 8192);
  test::Table& top = format("top", file, 8192);
  top.put({0, 4096}, ExtentKind::data, 0);
  top.put({4096, 4096}, ExtentKind::zero);
  test::View& view = reader(top);

  EXPECT_EQ(status(view, {0, 8192}), "data 4096 @1; hole zero 4096 @1");
  EXPECT_EQ(status(view, {1000, 2000}), "data 2000 @1");
  EXPECT_EQ(status(view, {4095, 2}), "data 1 @1; hole zero 1 @1");
  EXPECT_EQ(status(view, {8191, 1}), "hole zero 1 @1");
}

TEST_F(BlockStatus, S1_BoundariesAreWholeUnitsButAtTheEnd) {
  test::Disk& file = disk("file", 5000);
  file.wants.request_alignment = 512;
  file.extents = {piece(ExtentKind::zero, 700), piece(ExtentKind::data, 1000),
                  piece(ExtentKind::zero, 3300)};
  refresh();
  test::View& view = reader(file);

  EXPECT_EQ(status(view, {0, 5000}), "hole zero 512 @1; data 1536 @1; hole zero 2952 @1");
  EXPECT_EQ(status(view, {100, 700}), "hole zero 412 @1; data 288 @1");
}

TEST_F(BlockStatus, S1_ManyAnswersWithinOneUnitAreOne) {
  test::Disk& base = disk("base", 4096);
  test::Disk& file = disk("file", 4096);
  file.wants.request_alignment = 512;
  test::Table& top = overlay("top", file, base, 4096);
  refresh();
  top.put({0, 100}, ExtentKind::zero);
  top.put({200, 100}, ExtentKind::data, 0);
  top.put({400, 50}, ExtentKind::zero);
  test::View& view = reader(top);

  EXPECT_EQ(status(view, {0, 1024}), "data 512 @1; data 512 @2");
}

TEST_F(BlockStatus, S2_AUnitThatIsPartlyDataIsData) {
  test::Disk& file = disk("file", 4096);
  file.wants.request_alignment = 4096;
  file.extents = {piece(ExtentKind::zero, 4095), piece(ExtentKind::data, 1)};
  refresh();
  EXPECT_EQ(status(reader(file), {0, 4096}), "data 4096 @1");
}

TEST_F(BlockStatus, S2_WhatOnlyTheNodeCanMakeOutIsData) {
  test::Disk& file = disk("file", 4096);
  test::Table& top = format("top", file, 4096);
  top.put({0, 4096}, ExtentKind::opaque);
  EXPECT_EQ(status(reader(top), {0, 4096}), "data 4096 @1");
}

TEST_F(BlockStatus, S3_AskedOnlyWhoAnswersItNeverDescendsIntoTheFile) {
  test::Disk& file = disk("file", 4096);
  file.extents = {piece(ExtentKind::zero, 4096)};
  test::Table& top = format("top", file, 4096);
  top.put({0, 4096}, ExtentKind::data, 0);
  test::View& view = reader(top);

  EXPECT_EQ(status(view, {0, 4096}, MapDepth::allocation), "data 4096 @1");
  EXPECT_THAT(file.script.take(), IsEmpty());
  EXPECT_EQ(status(view, {0, 4096}, MapDepth::zeroes), "data zero 4096 @1");
  EXPECT_THAT(file.script.take(), ElementsAre("map 0+4096"));
}

TEST_F(BlockStatus, S4_TheDepthIsThatOfTheLayerThatAnswers) {
  test::Disk& base = disk("base", 4096);
  test::Disk& middle_file = disk("middle-file", 4096);
  test::Disk& top_file = disk("top-file", 4096);
  test::Table& bottom = format("bottom", base, 4096);
  test::Table& middle = overlay("middle", middle_file, bottom, 4096);
  test::Table& top = overlay("top", top_file, middle, 4096);
  bottom.put({0, 1000}, ExtentKind::data, 0);
  middle.put({0, 500}, ExtentKind::data, 0);
  top.put({0, 100}, ExtentKind::data, 0);

  EXPECT_EQ(status(reader(top), {0, 4096}),
            "data 100 @1; data 400 @2; data 500 @3; hole zero 3096 @0");
}

TEST_F(BlockStatus, S4_ProvisionedZeroesAreNoHole) {
  test::Disk& file = disk("file", 4096);
  test::Table& top = format("top", file, 4096);
  top.put({0, 4096}, ExtentKind::zero);
  top.last().provisioned = true;
  EXPECT_EQ(status(reader(top), {0, 4096}), "data zero 4096 @1");
}

// B-1
TEST_F(BlockStatus, S4_ZeroesBeyondAShortLayerAreThatLayers) {
  test::Disk& base = disk("base", 1000);
  test::Disk& file = disk("file", 4096);
  test::Table& top = overlay("top", file, base, 4096);

  EXPECT_EQ(status(reader(top), {0, 4096}), "data 1000 @2; hole zero 3096 @2");
}

TEST_F(BlockStatus, S6_AHoleOfTheFileIsZeroAndSoIsWhatLiesBehindItsEnd) {
  test::Disk& file = disk("file", 3000);
  file.extents = {piece(ExtentKind::data, 1000), piece(ExtentKind::zero, 1000),
                  piece(ExtentKind::data, 1000)};
  test::Table& top = format("top", file, 8192);
  top.put({0, 8192}, ExtentKind::data, 500);

  EXPECT_EQ(status(reader(top), {0, 8192}),
            "data 500 @1; data zero 1000 @1; data 1000 @1; data zero 5692 @1");
}

TEST_F(BlockStatus, S8_GivesNoMoreExtentsThanAskedForAndEachIsWhole) {
  test::Disk& file = disk("file", 1000);
  test::Table& top = format("top", file, 1000);
  for (std::uint64_t i = 0; i < 10; ++i) {
    top.put({i * 100, 100}, i % 2 == 0 ? ExtentKind::data : ExtentKind::zero, i * 100);
  }
  test::View& view = reader(top);

  EXPECT_EQ(status(view, {0, 1000}, MapDepth::zeroes, 1), "data 100 @1");
  EXPECT_EQ(status(view, {50, 950}, MapDepth::zeroes, 3),
            "data 50 @1; hole zero 100 @1; data 100 @1");
}

TEST_F(BlockStatus, S8_NeighboursThatAreAlikeAreOneThoughTheNodeAnswersInPieces) {
  test::Disk& file = disk("file", 1000);
  test::Table& top = format("top", file, 1000);
  top.put({0, 900}, ExtentKind::data, 0);
  top.map_max = 70;

  EXPECT_EQ(status(reader(top), {0, 1000}), "data 900 @1; hole zero 100 @0");
}

TEST_F(BlockStatus, S8_NeighboursThatAreAlikeInTwoLayersStayTwo) {
  test::Disk& base = disk("base", 1000);
  test::Disk& file = disk("file", 1000);
  test::Table& top = overlay("top", file, base, 1000);
  top.put({0, 500}, ExtentKind::data, 0);
  EXPECT_EQ(status(reader(top), {0, 1000}), "data 500 @1; data 500 @2");
}

// Memory for the answer is bounded by what was asked for, not by how fragmented the file is.
TEST_F(BlockStatus, S8_AFragmentedFileIsNotReadToItsEndForAShortAnswer) {
  test::Disk& file = disk("file", 100'000);
  std::vector<Extent> fragments;
  for (int i = 0; i < 10'000; ++i) {
    fragments.push_back(piece(i % 2 == 0 ? ExtentKind::data : ExtentKind::zero, 10));
  }
  file.extents = fragments;
  test::Table& top = format("top", file, 100'000);
  top.put({0, 100'000}, ExtentKind::data, 0);
  test::View& view = reader(top);

  EXPECT_EQ(status(view, {0, 100'000}, MapDepth::zeroes, 2), "data 10 @1; data zero 10 @1");
  EXPECT_LE(file.script.count("map"), 3U);
}

TEST_F(BlockStatus, GoesOnWhereAFragmentedLayerBelowStopped) {
  test::Disk& base = disk("base", 1000);
  base.extents = {piece(ExtentKind::data, 100), piece(ExtentKind::zero, 100),
                  piece(ExtentKind::data, 100), piece(ExtentKind::zero, 700)};
  test::Disk& file = disk("file", 1000);
  test::Table& top = overlay("top", file, base, 1200);

  EXPECT_EQ(status(reader(top), {0, 1200}, MapDepth::zeroes, 4),
            "data 100 @2; hole zero 100 @2; data 100 @2; hole zero 900 @2");
  EXPECT_EQ(status(*views.back(), {0, 1200}, MapDepth::zeroes, 2), "data 100 @2; hole zero 100 @2");
}

TEST_F(BlockStatus, AnErrorCountsFromTheFirstByteOfTheView) {
  test::Disk& file = disk("file", 1000);
  graph::ViewOptions options("export 'e'");
  options.window = Range{100, 500};
  test::View& window = view(file, std::move(options));
  file.script.break_down("map", Errc::io_error);

  const auto answer = run(window.block_status({7, 10}, MapDepth::zeroes, 1));

  EXPECT_EQ(code_of(answer), Errc::io_error);
  EXPECT_EQ(answer.error().offset, 7U);
}

// Reading follows from the same map.
TEST_F(BlockStatus, WhatIsReadIsWhatTheMapSays) {
  test::Disk& base = disk("base", std::string(600, 'b'));
  test::Disk& file = disk("file", std::string(150, 'f'));
  test::Table& top = overlay("top", file, base, 1000);
  top.put({0, 100}, ExtentKind::data, 100);
  top.put({100, 100}, ExtentKind::zero);
  top.put({200, 100}, ExtentKind::opaque);
  top.map_max = 90;

  EXPECT_EQ(read(reader(top), {0, 1000}), std::string(50, 'f') + std::string(150, '\0') +
                                              std::string(100, 'O') + std::string(300, 'b') +
                                              std::string(400, '\0'));
}

TEST_F(BlockStatus, AFailedReadOfAMappedExtentIsAtTheReadersByte) {
  test::Disk& file = disk("file", std::string(1000, 'f'));
  test::Table& top = format("top", file, 1000);
  top.put({500, 100}, ExtentKind::data, 100);
  file.script.break_down("read", Errc::io_error);

  const auto got = read(reader(top), {400, 300});

  EXPECT_EQ(code_of(got), Errc::io_error);
  EXPECT_EQ(got.error().offset, 500U);
}

}  // namespace
