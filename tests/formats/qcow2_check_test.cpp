// The check of a qcow2 image, and that a repair may be cut off anywhere. That its counts are those
// of qemu-img is shown by tests/interop/qcow2_check_test.py.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "formats/qcow2/check.h"
#include "formats/qcow2/create.h"
#include "formats/qcow2/layout.h"
#include "formats/qcow2/reference_counts.h"
#include "tests/support/graph_fixture.h"
#include "tests/support/seed.h"

namespace formats::qcow2 {
namespace {

using test::code_of;
using test::message_of;
using testing::HasSubstr;

constexpr unsigned cluster_bits = 12;
constexpr std::uint64_t cluster = 1 << cluster_bits;

// An image of 4 MiB, all of it allocated: header, refcount table, block, L1, two L2 tables, data.
std::string allocated_image(test::Bench& bench) {
  test::Disk& file = bench.disk("new", 0);
  MediumOf<test::View> medium(bench.grower(file));
  CreateOptions options;
  options.size = 4 * MiB;
  options.geometry.cluster_bits = cluster_bits;
  options.preallocation = Preallocation::metadata;
  EXPECT_OK(bench.run(create(medium, nullptr, options, {})));
  return file.content;
}

std::uint64_t number(const std::string& content, std::uint64_t at) {
  Be<std::uint64_t> stored;
  std::memcpy(&stored, content.data() + at, sizeof(stored));
  return stored;
}
void put(std::string& content, std::uint64_t at, std::uint64_t value) {
  const Be<std::uint64_t> stored = value;
  std::memcpy(content.data() + at, &stored, sizeof(stored));
}

class Qcow2Check : public test::GraphTest {
 protected:
  static constexpr std::uint64_t table = 1 * cluster;
  static constexpr std::uint64_t block = 2 * cluster;
  static constexpr std::uint64_t l1 = 3 * cluster;
  static constexpr std::uint64_t l2 = 4 * cluster;

  static Result<CheckReport> check_disk(test::Bench& bench, test::Disk& file, Repair repair,
                                        std::vector<std::string>* lines = nullptr) {
    MediumOf<test::View> medium(bench.grower(file));
    CheckOptions options;
    options.repair = repair;
    if (lines != nullptr) {
      options.found = [lines](const std::string& line) { lines->push_back(line); };
    }
    return bench.run(check(medium, options));
  }
};

TEST_F(Qcow2Check, OfAGoodImageFindsNothing) {
  test::Disk& file = disk("file", allocated_image(*this));
  const auto report = check_disk(*this, file, Repair::none);
  ASSERT_OK(report);
  EXPECT_TRUE(report->is_clean());
  EXPECT_EQ(report->allocated_clusters, 1024U);
  EXPECT_EQ(report->total_clusters, 1024U);
  EXPECT_EQ(report->image_end, file.content.size());
  EXPECT_EQ(file.script.count("write"), 0U);
}

TEST_F(Qcow2Check, TellsWhatIsWrongInALineEach) {
  std::string image = allocated_image(*this);
  put(image, l2, number(image, l2 + 8));  // two for one cluster, none for another
  test::Disk& file = disk("file", image);
  std::vector<std::string> lines;

  const auto report = check_disk(*this, file, Repair::none, &lines);

  ASSERT_OK(report);
  EXPECT_EQ(report->corruptions, 1U);
  EXPECT_EQ(report->leaks, 1U);
  EXPECT_THAT(lines, testing::ElementsAre("Leaked cluster 6 refcount=1 reference=0",
                                          "ERROR cluster 7 refcount=1 reference=2"));
}

TEST_F(Qcow2Check, WhatIsNoImageCantBeChecked) {
  test::Disk& file = disk("file", std::string(cluster, 'x'));
  EXPECT_EQ(code_of(check_disk(*this, file, Repair::all)), Errc::invalid_argument);
  EXPECT_EQ(file.content, std::string(cluster, 'x'));
}

TEST_F(Qcow2Check, LeaksAreNotRepairedWhereTheCountsAreUnusable) {
  std::string image = allocated_image(*this);
  put(image, table, 0);
  test::Disk& file = disk("file", image);
  EXPECT_THAT(message_of(check_disk(*this, file, Repair::leaks)), HasSubstr("repair all"));
  EXPECT_EQ(file.content, image);
}

TEST_F(Qcow2Check, AnImageThatCantGrowIsRebuiltInsideIfThereIsRoom) {
  std::string image = allocated_image(*this);
  put(image, table, 0);
  put(image, l2, 0);
  put(image, l2 + 8, 0);  // a place for the table, and one for the block; the old ones stay
  test::Disk& device = disk("device", image);
  device.grows = graph::Growth::never;
  refresh();

  const auto report = check_disk(*this, device, Repair::all);

  ASSERT_OK(report);
  EXPECT_TRUE(report->is_clean());
  EXPECT_EQ(device.content.size(), image.size());
}

TEST_F(Qcow2Check, AnImageThatCantGrowStaysAsItIsWhereThereIsNoRoom) {
  test::Disk& full = disk("full", allocated_image(*this));
  put(full.content, table, 0);
  full.grows = graph::Growth::never;
  refresh();
  const std::string before = full.content;
  EXPECT_EQ(code_of(check_disk(*this, full, Repair::all)), Errc::no_space);
  EXPECT_EQ(full.content, before);
}

// Each repair is cut off at every write: a second one finds no more wrong than the first, and the
// disk that the guest sees is the same.
TEST_F(Qcow2Check, ARepairThatIsCutOffIsDoneByTheNext) {
  const std::string good = allocated_image(*this);
  const auto spoil = [&](unsigned kind) {
    std::string image = good;
    if (kind == 0) put(image, l2 + 8, number(image, l2 + 16));        // shared
    if (kind == 1) put(image, table, 0);                              // nothing counted
    if (kind == 2) std::memset(image.data() + block, 0, cluster);     // all counted as free
    if (kind == 3) put(image, l1, number(image, l1) & ~copied_bit);   // a flag
    if (kind == 4) std::memset(image.data() + block + 4, 0x11, 200);  // leaks
    if (kind == 5) put(image, table, block + 512);                    // a crooked block
    return image;
  };
  for (unsigned kind = 0; kind < 6; ++kind) {
    for (unsigned failing = 1;; ++failing) {
      SCOPED_TRACE(testing::Message() << "kind " << kind << ", write " << failing);
      std::string left;
      bool is_done = false;
      {
        test::Bench bench;
        test::Disk& file = bench.disk("file", spoil(kind));
        file.script.fail("write", Errc::io_error, failing);
        is_done = check_disk(bench, file, Repair::all).has_value();
        left = file.content;
      }
      test::Bench bench;
      test::Disk& file = bench.disk("file", left);
      const auto report = check_disk(bench, file, Repair::all);
      ASSERT_OK(report);
      EXPECT_TRUE(report->is_clean());
      for (std::uint64_t entry = 0; entry < 8; ++entry) {
        EXPECT_EQ(number(file.content, l2 + entry * 8) & offset_mask,
                  number(spoil(kind), l2 + entry * 8) & offset_mask);
      }
      if (is_done) break;
      ASSERT_LT(failing, 50U);
    }
  }
}

TEST_F(Qcow2Check, AHostileImageIsAnErrorOrAReport) {
  const std::uint64_t seed = test::seed();
  std::mt19937_64 random(seed);
  const std::string good = allocated_image(*this);
  for (int round = 0; round < 300; ++round) {
    SCOPED_TRACE(test::repeat_with(seed) + ", round " + std::to_string(round));
    std::string image = good;
    for (unsigned i = 0; i <= random() % 6; ++i) {
      const std::uint64_t at = random() % 2 == 0 ? random() % 104 : random() % (6 * cluster);
      image[at] = static_cast<char>(random());
    }
    test::Bench bench;
    test::Disk& file = bench.disk("file", std::move(image));
    const Repair repair = round % 2 == 0 ? Repair::none : Repair::all;
    const auto report = check_disk(bench, file, repair);
    if (!report) {
      EXPECT_FALSE(report.error().message.empty());
    }
  }
}

TEST(ReferenceCounts, CountAsFarAsANumberGoes) {
  ReferenceCounts counts;
  for (int i = 0; i < 70000; ++i) counts.add(5);
  counts.add(1'000'000'000'000);
  EXPECT_EQ(counts.get(5), 70000U);
  for (int i = 0; i < 69000; ++i) counts.remove(5);
  EXPECT_EQ(counts.get(5), 1000U);
  EXPECT_EQ(counts.next(0), 5U);
  EXPECT_EQ(counts.next(6), 1'000'000'000'000U);
  EXPECT_EQ(counts.next(1'000'000'000'001), std::nullopt);
  EXPECT_EQ(counts.find_free(5, 1), 6U);
  EXPECT_EQ(counts.find_free(4, 2), 6U);
}

}  // namespace
}  // namespace formats::qcow2
