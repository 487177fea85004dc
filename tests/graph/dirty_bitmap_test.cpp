#include "graph/dirty_bitmap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "tests/support/graph_fixture.h"
#include "tests/support/seed.h"

namespace {

using graph::check_bitmap;
using graph::DirtyBitmap;
using testing::ElementsAre;
using Extent = DirtyBitmap::Extent;

DirtyBitmap bitmap(std::uint64_t granularity, std::uint64_t size) {
  return {"b", granularity, size};
}

TEST(DirtyBitmap, AGranuleThatIsTouchedIsDirty) {
  DirtyBitmap dirty = bitmap(4096, 100'000);
  dirty.mark({5000, 1});
  dirty.mark({12287, 2});
  dirty.mark({99'999, 1});

  EXPECT_THAT(dirty.extents({0, 100'000}, 10),
              ElementsAre(Extent{4096, false}, Extent{12288, true}, Extent{81920, false},
                          Extent{1696, true}));
  EXPECT_EQ(dirty.dirty_bytes(), 4U * 4096);
  EXPECT_EQ(dirty.dirty_bytes_in({0, 100'000}), 3U * 4096 + 1696);
}

TEST(DirtyBitmap, OnlyWholeGranulesBecomeClean) {
  DirtyBitmap dirty = bitmap(4096, 10'000);
  dirty.mark({0, 10'000});

  dirty.clean({1, 8191});
  EXPECT_THAT(dirty.extents({0, 10'000}, 10),
              ElementsAre(Extent{4096, true}, Extent{4096, false}, Extent{1808, true}));

  dirty.clean({8192, 1808});  // the last granule is shorter
  EXPECT_THAT(dirty.extents({0, 10'000}, 10), ElementsAre(Extent{4096, true}, Extent{5904, false}));
}

TEST(DirtyBitmap, WhatIsOutsideIsIgnored) {
  DirtyBitmap dirty = bitmap(512, 1000);
  dirty.mark({1000, 100});
  dirty.mark({2000, ~std::uint64_t{0} - 2000});
  EXPECT_EQ(dirty.dirty_bytes(), 0U);

  dirty.mark({999, ~std::uint64_t{0} - 999});
  EXPECT_EQ(dirty.dirty_bytes(), 512U);
  dirty.clean({5000, 10});
  EXPECT_EQ(dirty.dirty_bytes(), 512U);
}

TEST(DirtyBitmap, ExtentsAreNoMoreThanWanted) {
  DirtyBitmap dirty = bitmap(512, 4096);
  for (std::uint64_t at = 0; at < 4096; at += 1024) dirty.mark({at, 1});
  EXPECT_THAT(dirty.extents({100, 3000}, 3),
              ElementsAre(Extent{412, true}, Extent{512, false}, Extent{512, true}));
  EXPECT_THAT(dirty.extents({100, 10}, 3), ElementsAre(Extent{10, true}));
}

TEST(DirtyBitmap, MergesOtherGranularities) {
  DirtyBitmap coarse = bitmap(4096, 20'000);
  DirtyBitmap fine = bitmap(512, 20'000);
  fine.mark({5000, 1});
  fine.mark({19'999, 1});

  coarse.merge(fine);
  EXPECT_THAT(coarse.extents({0, 20'000}, 9), ElementsAre(Extent{4096, false}, Extent{4096, true},
                                                          Extent{8192, false}, Extent{3616, true}));

  fine.clean_all();
  fine.merge(coarse);
  EXPECT_EQ(fine.dirty_bytes_in({4096, 4096}), 4096U);
  EXPECT_EQ(fine.dirty_bytes_in({0, 20'000}), 4096U + 3616);
}

TEST(DirtyBitmap, WhatIsNewAfterAResizeIsClean) {
  DirtyBitmap dirty = bitmap(512, 600);
  dirty.mark({0, 600});

  dirty.resize(100'000);
  EXPECT_THAT(dirty.extents({0, 100'000}, 9),
              ElementsAre(Extent{1024, true}, Extent{98976, false}));

  dirty.resize(512);
  dirty.resize(1024);
  EXPECT_THAT(dirty.extents({0, 1024}, 9), ElementsAre(Extent{512, true}, Extent{512, false}));
}

// As qcow2's documentation of bitmap data says.
TEST(DirtyBitmap, IsStoredLeastSignificantBitFirst) {
  DirtyBitmap dirty = bitmap(512, std::uint64_t{20} * 512);
  dirty.mark({0, 1});
  dirty.mark({std::uint64_t{3} * 512, 1});
  dirty.mark({std::uint64_t{19} * 512, 1});
  std::vector<std::byte> bytes(4, std::byte{0xee});

  dirty.store(0, bytes);
  EXPECT_THAT(bytes, ElementsAre(std::byte{0x09}, std::byte{0}, std::byte{0x08}, std::byte{0}));

  DirtyBitmap again = bitmap(512, std::uint64_t{20} * 512);
  bytes[2] = std::byte{0xff};  // four of them lie past the end
  again.load(0, bytes);
  EXPECT_EQ(again.dirty_bytes(), 6U * 512);
}

TEST(DirtyBitmap, IsCheckedBeforeItIsMade) {
  const auto message = [](const std::string& name, std::uint64_t granularity, std::uint64_t size) {
    return test::message_of(check_bitmap(name, granularity, size));
  };
  constexpr std::uint64_t tib = std::uint64_t{1} << 40;
  EXPECT_OK(check_bitmap("b", 512, 0));
  EXPECT_OK(check_bitmap(std::string(1023, 'n'), 2 * GiB, 100 * tib));
  EXPECT_OK(check_bitmap("b", 512, 2 * tib));
  EXPECT_EQ(message("", 512, 0), "Bitmap name cannot be empty");
  EXPECT_EQ(message("b", 256, 0), "Granularity must be power of 2 and at least 512");
  EXPECT_EQ(message("b", 513, 0), "Granularity must be power of 2 and at least 512");
  EXPECT_EQ(message("b", 4 * GiB, 0), "Granularity must be at most 2147483648");
  EXPECT_EQ(message(std::string(1024, 'n'), 512, 0),
            "Bitmap name too long: " + std::string(1024, 'n'));
  EXPECT_EQ(message("b", 512, 2 * tib + 1),
            "A granularity of 512 makes more than 4294967296 bits for 2199023255553 bytes: take a "
            "larger one");
}

// Bytes one by one.
TEST(DirtyBitmap, AgreesWithASetOfGranules) {
  const std::uint64_t first = test::seed();
  for (std::uint64_t seed = first; seed < first + 30 && !HasFailure(); ++seed) {
    SCOPED_TRACE(test::repeat_with(seed));
    std::mt19937_64 random(seed);
    const std::uint64_t granularity = std::uint64_t{512} << random() % 4;
    std::uint64_t size = random() % 200'000;
    DirtyBitmap dirty = bitmap(granularity, size);
    std::set<std::uint64_t> granules;
    for (int i = 0; i < 100 && !HasFailure(); ++i) {
      const Range range{random() % 210'000, random() % 30'000};
      const std::uint64_t end = std::min(range.end(), size);
      switch (random() % 4) {
        case 0:
          dirty.clean(range);
          for (std::uint64_t g = 0; g * granularity < size; ++g) {
            const bool inside = g * granularity >= range.offset &&
                                std::min((g + 1) * granularity, size) <= range.end();
            if (inside) granules.erase(g);
          }
          break;
        case 1:
          size = random() % 3 == 0 ? random() % 200'000 : size;
          dirty.resize(size);
          std::erase_if(granules, [&](std::uint64_t g) { return g * granularity >= size; });
          break;
        default:
          dirty.mark(range);
          for (std::uint64_t at = range.offset; at < end; ++at) granules.insert(at / granularity);
      }
      if (size == 0) continue;
      const Range asked{random() % size, 1 + random() % (size + 1)};
      const Range inside{asked.offset, std::min(asked.length, size - asked.offset)};
      std::uint64_t at = inside.offset;
      std::uint64_t dirty_bytes = 0;
      for (const Extent& extent : dirty.extents(inside, 1'000'000)) {
        for (std::uint64_t n = 0; n < extent.length; n += granularity / 2) {
          ASSERT_EQ(extent.dirty, granules.contains((at + n) / granularity)) << at + n;
        }
        if (extent.dirty) dirty_bytes += extent.length;
        at += extent.length;
      }
      ASSERT_EQ(at, inside.end());
      ASSERT_EQ(dirty.dirty_bytes_in(inside), dirty_bytes);
      ASSERT_EQ(dirty.dirty_bytes(), granules.size() * granularity);
    }
  }
}

}  // namespace
