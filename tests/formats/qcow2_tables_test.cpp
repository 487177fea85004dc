// The snapshot table and the bitmap directory of a qcow2 image.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/qcow2/bitmap_directory.h"
#include "formats/qcow2/layout.h"
#include "formats/qcow2/snapshot_table.h"
#include "tests/support/graph_fixture.h"

namespace formats::qcow2 {
namespace {

using test::code_of;
using test::message_of;
using testing::HasSubstr;

Snapshot monday() {
  Snapshot snapshot;
  snapshot.l1_table_offset = 0x50000;
  snapshot.l1_size = 4;
  snapshot.id = "1";
  snapshot.name = "monday";
  snapshot.date_seconds = 1'700'000'000;
  snapshot.date_nanoseconds = 5;
  snapshot.vm_clock_nanoseconds = 7;
  snapshot.vm_state_size = 5 * GiB;
  snapshot.disk_size = GiB;
  return snapshot;
}

std::vector<std::byte> table_of(const Snapshot& snapshot) {
  return format_snapshots(std::span(&snapshot, 1)).value();
}

TEST(Qcow2SnapshotTable, KeepsEverySnapshotAndWhatItDoesNotKnow) {
  std::vector<Snapshot> snapshots{monday(), monday()};
  snapshots[1].icount = 99;
  snapshots[1].unknown_extra.assign(13, std::byte{1});
  const auto table = format_snapshots(snapshots);
  ASSERT_OK(table);

  const auto first = parse_snapshot(*table, 0);
  ASSERT_OK(first);
  EXPECT_EQ(first->bytes % 8, 0U);
  const auto second = parse_snapshot(std::span(*table).subspan(first->bytes), 1);
  ASSERT_OK(second);

  EXPECT_TRUE(first->snapshot == snapshots[0]);
  EXPECT_TRUE(second->snapshot == snapshots[1]);
  EXPECT_EQ(first->bytes + second->plain_bytes, table->size());
}

TEST(Qcow2SnapshotTable, ReadsEntriesWithoutExtraData) {
  RawSnapshot raw{};
  raw.vm_state_size = 12;
  const auto parsed = parse_snapshot(bytes_of(raw), 0);
  ASSERT_OK(parsed);
  EXPECT_EQ(parsed->snapshot.vm_state_size, 12U);
  EXPECT_FALSE(parsed->snapshot.disk_size);
  EXPECT_FALSE(parsed->snapshot.icount);
}

TEST(Qcow2SnapshotTable, AnEntryThatEndsEarlyIsRefused) {
  const auto table = table_of(monday());
  for (std::size_t size = 0; size < table.size(); ++size) {
    EXPECT_EQ(code_of(parse_snapshot(std::span(table).first(size), 3)), Errc::corrupt);
  }
  EXPECT_THAT(message_of(parse_snapshot({}, 3)), HasSubstr("entry 3 is cut off"));
}

TEST(Qcow2SnapshotTable, TooMuchExtraDataIsRefusedOrDropped) {
  auto table = table_of(monday());
  const Be<std::uint32_t> size = snapshot_extra_bytes_max + 1;
  std::memcpy(table.data() + offsetof(RawSnapshot, extra_data_size), &size, sizeof(size));
  table.resize(4096);
  EXPECT_THAT(message_of(parse_snapshot(table, 2)), HasSubstr("entry 2 has 1025 bytes of extra"));
  const auto dropped = parse_snapshot(table, 2, ExtraData::drop);
  ASSERT_OK(dropped);
  EXPECT_TRUE(dropped->is_cut);
  EXPECT_OK(format_snapshots(std::span(&dropped->snapshot, 1)));

  const Be<std::uint32_t> huge = 0xffffffff;
  std::memcpy(table.data() + offsetof(RawSnapshot, extra_data_size), &huge, sizeof(huge));
  EXPECT_EQ(code_of(parse_snapshot(table, 2, ExtraData::drop)), Errc::corrupt);
}

TEST(Qcow2SnapshotTable, WhatDoesNotFitIsNotMade) {
  Snapshot long_name = monday();
  long_name.name.assign(65536, 'n');
  EXPECT_EQ(code_of(format_snapshots(std::span(&long_name, 1))), Errc::no_space);
  const std::vector<Snapshot> many(snapshots_max + 1);
  EXPECT_EQ(code_of(format_snapshots(many)), Errc::no_space);
}

class Qcow2BitmapDirectory : public testing::Test {
 protected:
  Qcow2BitmapDirectory() {
    raw.table_offset = 0x50000;
    raw.table_size = 1;
    raw.type = dirty_tracking_bitmap;
    raw.granularity_bits = 16;
    raw.name_size = 4;
  }
  Result<std::vector<Bitmap>> parse(std::uint64_t size = GiB) const {
    std::vector<std::byte> directory(sizeof(raw) + align_up(raw.name_size, 8));
    std::memcpy(directory.data(), &raw, sizeof(raw));
    std::memcpy(directory.data() + sizeof(raw), "name", directory.size() > sizeof(raw) ? 4 : 0);
    return parse_bitmap_directory(directory, 1, Geometry(), size);
  }
  void expect_refused(const char* words, Errc code = Errc::corrupt) const {
    EXPECT_EQ(code_of(parse()), code);
    EXPECT_THAT(message_of(parse()), HasSubstr(words));
  }
  RawBitmapEntry raw{};
};

TEST_F(Qcow2BitmapDirectory, IsFormattedAsItWasRead) {
  raw.flags = bitmap_flag::automatic;
  const auto bitmaps = parse();
  ASSERT_OK(bitmaps);
  EXPECT_EQ(bitmaps->at(0).name, "name");
  EXPECT_EQ(bitmaps->at(0).granularity(), 64 * KiB);
  const auto directory = format_bitmap_directory(*bitmaps);
  ASSERT_OK(directory);
  EXPECT_EQ(*parse_bitmap_directory(*directory, 1, Geometry(), GiB), *bitmaps);
}

TEST_F(Qcow2BitmapDirectory, RefusesATableThatCantBe) {
  raw.table_offset = 0;
  expect_refused("a table can't be at 0x0");
  raw.table_offset = 0x50200;
  expect_refused("a table can't be at 0x50200");
  raw.table_offset = std::uint64_t{1} << 56;
  expect_refused("a table can't be at 0x100000000000000");
  raw.table_offset = 0x50000;
  raw.table_size = 0;
  expect_refused("table_size is 0");
  raw.table_size = 0xffffffff;
  expect_refused("table_size is 4294967295");
  raw.table_size = 8193;
  expect_refused("536936448 bytes of bits are too many");
}

TEST_F(Qcow2BitmapDirectory, RefusesOtherFieldsThatCantBe) {
  raw.granularity_bits = 8;
  expect_refused("granularity_bits is 8");
  raw.granularity_bits = 32;
  expect_refused("granularity_bits is 32");
  raw.granularity_bits = 16;
  raw.name_size = 0;
  expect_refused("name_size is 0");
  raw.name_size = 1024;
  expect_refused("name_size is 1024");
  raw.name_size = 4;
  raw.extra_data_size = 0xffffffff;
  expect_refused("the directory of 32 bytes ends within it");
}

TEST_F(Qcow2BitmapDirectory, KeepsWhatNobodyKnowsAndDoesNotUseIt) {
  const auto expect_kept = [&](bool usable) {
    const auto bitmaps = parse();
    ASSERT_OK(bitmaps);
    EXPECT_EQ(bitmaps->at(0).is_usable(), usable);
    const auto directory = format_bitmap_directory(*bitmaps);
    ASSERT_OK(directory);
    EXPECT_EQ(std::memcmp(directory->data(), &raw, sizeof(raw)), 0);
    EXPECT_EQ(*parse_bitmap_directory(*directory, 1, Geometry(), GiB), *bitmaps);
  };
  expect_kept(true);
  raw.flags = 8;
  expect_kept(false);
  raw.flags = 0;
  raw.type = 2;
  raw.granularity_bits = 77;  // means something else there
  expect_kept(false);
  raw.type = dirty_tracking_bitmap;
  raw.granularity_bits = 16;
  raw.name_size = 2;
  raw.extra_data_size = 2;
  expect_kept(false);
  raw.flags = bitmap_flag::extra_data_compatible;
  expect_kept(true);
  EXPECT_EQ(parse()->at(0).name, "me");
  EXPECT_EQ(parse()->at(0).extra_data.size(), 2U);
}

TEST_F(Qcow2BitmapDirectory, HasEachNameOnce) {
  std::vector<Bitmap> two(2, parse()->at(0));
  const auto directory = format_bitmap_directory(two).value();
  EXPECT_THAT(message_of(parse_bitmap_directory(directory, 2, Geometry(), GiB)),
              HasSubstr("entry 1: the name 'name' is there twice"));
}

TEST_F(Qcow2BitmapDirectory, HasABitForEachPartOfTheDiskUnlessItIsInUse) {
  constexpr std::uint64_t covered = (64 * KiB * 8) << 16;
  EXPECT_OK(parse(covered));
  EXPECT_THAT(message_of(parse(covered + 1)), HasSubstr("524288 bits are too few"));
  raw.flags = bitmap_flag::in_use;
  EXPECT_OK(parse(covered + 1));
}

TEST_F(Qcow2BitmapDirectory, HasExactlyTheBitmapsThatAreCounted) {
  const auto directory = format_bitmap_directory(*parse()).value();
  EXPECT_THAT(message_of(parse_bitmap_directory(directory, 2, Geometry(), GiB)),
              HasSubstr("entry 1: the directory of 32 bytes ends before it"));
  EXPECT_THAT(message_of(parse_bitmap_directory(directory, 0, Geometry(), GiB)),
              HasSubstr("0 bitmaps take 0 bytes of a bitmap directory of 32"));
  EXPECT_THAT(
      message_of(parse_bitmap_directory(std::span(directory).first(24), 1, Geometry(), GiB)),
      HasSubstr("entry 0: the directory of 24 bytes ends within it"));
}

TEST(Qcow2BitmapTable, AnEntryIsZeroesOnesOrACluster) {
  using Kind = BitmapTableEntry::Kind;
  const Geometry geometry;
  const auto kind = [&](std::uint64_t entry) {
    return parse_bitmap_table_entry(entry, geometry).kind;
  };
  EXPECT_EQ(kind(0), Kind::zeroes);
  EXPECT_EQ(kind(1), Kind::ones);
  EXPECT_EQ(kind(0x50000), Kind::stored);
  EXPECT_EQ(kind(0x50001), Kind::wrong);
  EXPECT_EQ(kind(0x50200), Kind::wrong);
  EXPECT_EQ(kind(2), Kind::wrong);
  EXPECT_EQ(kind(std::uint64_t{1} << 56), Kind::wrong);
}

}  // namespace
}  // namespace formats::qcow2
