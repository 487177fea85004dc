// What entries of an L2 table say: the rules one by one, and entries and runs drawn by lot against
// a reading of the specification that knows no shortcuts.
#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <vector>

#include "formats/qcow2/l2_entry.h"
#include "tests/support/seed.h"

namespace {

using namespace formats::qcow2;

EntryRules rules_for(unsigned cluster_bits, bool zero_flag = true) {
  EntryRules rules;
  rules.geometry.cluster_bits = cluster_bits;
  rules.zero_flag = zero_flag;
  return rules;
}
EntryRules extended_rules(unsigned cluster_bits) {
  EntryRules rules = rules_for(cluster_bits);
  rules.geometry.extended_l2 = true;
  return rules;
}
EntryRules external_rules(unsigned cluster_bits) {
  EntryRules rules = rules_for(cluster_bits);
  rules.external_data = true;
  return rules;
}

L2Entry entry_of(std::uint64_t descriptor, std::uint64_t bitmap = 0) {
  L2Entry entry;
  entry.descriptor = descriptor;
  entry.bitmap = bitmap;
  return entry;
}
std::string complaint(L2Entry entry, const EntryRules& rules, std::uint64_t guest = 0) {
  const auto cluster = decode(entry, rules, guest);
  return cluster ? "(none)" : cluster.error();
}
bool says(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

TEST(L2Entry, L2_NothingIsUnallocated) {
  const auto cluster = decode(entry_of(0), rules_for(16), 0);
  ASSERT_TRUE(cluster);
  EXPECT_EQ(*cluster, Cluster());
}

TEST(L2Entry, L2_StandardEntriesSayWhereAndWhetherAlone) {
  const auto alone = decode(entry_of(copied_bit | 0x50000), rules_for(16), 0);
  const auto shared = decode(entry_of(0x50000), rules_for(16), 0);
  ASSERT_TRUE(alone && shared);
  EXPECT_TRUE(alone->copied && !shared->copied);
  EXPECT_EQ(alone->host, 0x50000U);
  EXPECT_EQ(alone->data, 1U);
  EXPECT_EQ(alone->zero, 0U);
}

TEST(L2Entry, L2_ZeroHidesWhatIsThere) {
  const auto plain = decode(entry_of(zero_bit), rules_for(16), 0);
  const auto placed = decode(entry_of(copied_bit | 0x50000 | zero_bit), rules_for(16), 0);
  ASSERT_TRUE(plain && placed);
  EXPECT_FALSE(plain->has_host);
  EXPECT_TRUE(placed->has_host && placed->copied);
  EXPECT_TRUE(plain->zero == 1 && placed->zero == 1);
  EXPECT_TRUE(plain->data == 0 && placed->data == 0);
}

TEST(L2Entry, L2_ZeroNeedsVersion3AndNoSubclusters) {
  EXPECT_TRUE(says(complaint(entry_of(zero_bit), rules_for(16, false)), "version 2"));
  EXPECT_TRUE(says(complaint(entry_of(zero_bit), extended_rules(16)), "subclusters"));
}

TEST(L2Entry, L2_EachReservedBitIsFound) {
  for (const unsigned bit : {1U, 2U, 5U, 8U, 56U, 57U, 60U, 61U}) {
    EXPECT_TRUE(says(complaint(entry_of(std::uint64_t{1} << bit | 0x50000), rules_for(16)),
                     "reserved bits"))
        << bit;
  }
}

TEST(L2Entry, L2_OffsetsAreAlignedToClusters) {
  EXPECT_TRUE(says(complaint(entry_of(0x50200), rules_for(16)), "not aligned to 0x10000"));
  EXPECT_EQ(complaint(entry_of(0x50200), rules_for(9)), "(none)");
}

TEST(L2Entry, L3_SubclustersAreNotDataAndZeroAtOnce) {
  const std::uint64_t both = std::uint64_t{1} << 35 | 1 << 3;
  EXPECT_TRUE(says(complaint(entry_of(copied_bit | 0x50000, both), extended_rules(16)), "at once"));
}

TEST(L2Entry, L3_SubclustersWithDataNeedAHost) {
  EXPECT_TRUE(says(complaint(entry_of(0, 1), extended_rules(16)), "no host cluster"));
  EXPECT_EQ(complaint(entry_of(0, std::uint64_t{1} << 32), extended_rules(16)), "(none)");
}

TEST(L2Entry, L4_CompressedEntriesAreNeverCopiedNorExternalNorSubdivided) {
  EXPECT_TRUE(says(complaint(entry_of(compressed_bit | copied_bit | 512), rules_for(16)),
                   "compressed and COPIED"));
  EXPECT_TRUE(
      says(complaint(entry_of(compressed_bit | 512), external_rules(16)), "external data file"));
  EXPECT_TRUE(
      says(complaint(entry_of(compressed_bit | 512, 1), extended_rules(16)), "has subclusters"));
}

TEST(L2Entry, L4_CompressedPlacesEndWithTheirLastSector) {
  for (unsigned cluster_bits = 9; cluster_bits <= 21; ++cluster_bits) {
    const EntryRules rules = rules_for(cluster_bits);
    const unsigned x = 62 - (cluster_bits - 8);
    for (const std::uint64_t offset :
         {std::uint64_t{1536}, std::uint64_t{1537}, std::uint64_t{2047}}) {
      const auto cluster =
          decode(entry_of(compressed_bit | std::uint64_t{1} << x | offset), rules, 0);
      ASSERT_TRUE(cluster) << cluster.error();
      EXPECT_TRUE(cluster->compressed);
      EXPECT_EQ(cluster->place.offset, offset);
      EXPECT_EQ(cluster->place.offset + cluster->place.length, 2560U) << cluster_bits;
    }
  }
}

TEST(L2Entry, L4_WhatIsEncodedIsDecodedForEveryClusterSize) {
  for (unsigned cluster_bits = 9; cluster_bits <= 21; ++cluster_bits) {
    const EntryRules rules = rules_for(cluster_bits);
    const std::uint64_t unit = rules.geometry.cluster_size();
    for (const std::uint64_t offset : {unit, unit + 1, unit + unit / 2 + 3, unit * 1000 - 1}) {
      for (const std::uint64_t length : {std::uint64_t{1}, unit / 2, unit - 1, unit}) {
        CompressedPlace place;
        place.offset = offset;
        place.length = length;
        const auto entry = encode_compressed(place, rules);
        if (!entry) {
          // more sectors than the descriptor can count: only where it starts and ends in others
          EXPECT_GT(align_up(offset + length, 512) - align_down(offset, 512), unit);
          continue;
        }
        const auto cluster = decode(*entry, rules, 0);
        ASSERT_TRUE(cluster) << cluster.error();
        EXPECT_EQ(cluster->place.offset, offset);
        EXPECT_EQ(cluster->place.offset + cluster->place.length, align_up(offset + length, 512));
      }
    }
  }
}

TEST(L2Entry, L4_HostOffsetsThatDoNotFitAreRefused) {
  const EntryRules rules = rules_for(21);
  CompressedPlace place;
  place.length = 512;
  place.offset = (std::uint64_t{1} << 49) - 512;
  EXPECT_TRUE(encode_compressed(place, rules));
  place.offset = std::uint64_t{1} << 49;
  EXPECT_FALSE(encode_compressed(place, rules));
}

TEST(L2Entry, L6_AnExternalClusterLiesWhereItsGuestDoes) {
  const EntryRules rules = external_rules(16);
  const auto first = decode(entry_of(copied_bit), rules, 0);
  ASSERT_TRUE(first);
  EXPECT_TRUE(first->has_host && first->data == 1);
  EXPECT_FALSE(decode(entry_of(copied_bit), rules_for(16), 0)->has_host);
  EXPECT_EQ(complaint(entry_of(copied_bit | 0x50000), rules, 0x50000), "(none)");
  EXPECT_TRUE(says(complaint(entry_of(copied_bit | 0x50000), rules, 0x60000), "another offset"));
}

// --- by lot

// What one subcluster is; nothing when its entry is wrong.
struct Plain {
  RunKind kind = RunKind::below;
  bool has_host = false;
  bool copied = false;
  std::uint64_t host = 0;  // of the subcluster
  bool operator==(const Plain&) const = default;
};
std::optional<Plain> read_plainly(L2Entry entry, const EntryRules& rules, std::uint64_t guest) {
  const std::uint64_t unit = std::uint64_t{1} << rules.geometry.cluster_bits;
  const auto bit = [&](unsigned n) { return (entry.descriptor >> n & 1) != 0; };
  Plain plain;
  if (bit(62)) {
    const unsigned x = 62 - (rules.geometry.cluster_bits - 8);
    for (unsigned n = 56; n < x; ++n) {
      if (bit(n)) return std::nullopt;
    }
    if (bit(63) || rules.external_data || entry.bitmap != 0) return std::nullopt;
    plain.kind = RunKind::compressed;
    return plain;
  }
  for (unsigned n = 1; n < 9; ++n) {
    if (bit(n)) return std::nullopt;
  }
  for (unsigned n = 56; n < 62; ++n) {
    if (bit(n)) return std::nullopt;
  }
  if (bit(0) && (!rules.zero_flag || rules.geometry.extended_l2)) return std::nullopt;
  std::uint64_t host = 0;
  for (unsigned n = 9; n < 56; ++n) host |= bit(n) ? std::uint64_t{1} << n : 0;
  if (host % unit != 0) return std::nullopt;
  plain.copied = bit(63);
  plain.has_host = host != 0 || (rules.external_data && plain.copied);
  if (rules.external_data && plain.has_host && host != guest / unit * unit) return std::nullopt;
  if (plain.has_host) plain.host = host;
  if (!rules.geometry.extended_l2) {
    plain.kind = bit(0) ? RunKind::zero : plain.has_host ? RunKind::data : RunKind::below;
    if (plain.has_host) plain.host += guest % unit;
    return plain;
  }
  for (unsigned n = 0; n < 32; ++n) {
    const bool data = (entry.bitmap >> n & 1) != 0;
    if (data && ((entry.bitmap >> (n + 32) & 1) != 0 || !plain.has_host)) return std::nullopt;
  }
  const std::uint64_t sub = guest % unit / (unit / 32);
  if ((entry.bitmap >> sub & 1) != 0) plain.kind = RunKind::data;
  if ((entry.bitmap >> (sub + 32) & 1) != 0) plain.kind = RunKind::zero;
  if (plain.has_host) plain.host += guest % unit;
  return plain;
}

class Lots {
 public:
  explicit Lots(std::uint64_t seed) : random_(seed) {}
  std::uint64_t draw(std::uint64_t n) { return random_() % n; }
  bool chance(std::uint64_t one_in) { return draw(one_in) == 0; }

  EntryRules any_rules() {
    EntryRules rules = rules_for(static_cast<unsigned>(14 + draw(3)));
    rules.geometry.extended_l2 = chance(2);
    if (!rules.geometry.extended_l2 && chance(2)) {
      rules.geometry.cluster_bits = static_cast<unsigned>(9 + draw(13));
    }
    rules.zero_flag = rules.geometry.extended_l2 || !chance(4);
    rules.external_data = chance(4);
    return rules;
  }
  // Good, most of the time, and often like the one before.
  L2Entry any_entry(const EntryRules& rules, std::uint64_t guest, std::uint64_t likely_host) {
    const std::uint64_t unit = rules.geometry.cluster_size();
    L2Entry entry;
    if (chance(20)) {
      entry.descriptor = random_() & (chance(2) ? ~std::uint64_t{0} : ~l2_reserved_mask);
    } else if (chance(8) && !rules.external_data) {
      entry.descriptor = compressed_bit | draw(1 << 20);
    } else if (!chance(4)) {
      const std::uint64_t host = chance(4) ? (1 + draw(100)) * unit : likely_host;
      entry.descriptor = rules.external_data ? guest / unit * unit : host;
      if (!chance(6)) entry.descriptor |= copied_bit;
      if (rules.zero_flag && !rules.geometry.extended_l2 && chance(6)) entry.descriptor |= zero_bit;
    } else if (rules.zero_flag && !rules.geometry.extended_l2 && chance(2)) {
      entry.descriptor = zero_bit;
    }
    if (rules.geometry.extended_l2 && (entry.descriptor & compressed_bit) == 0) {
      const bool placed = (entry.descriptor & ~copied_bit) != 0 || rules.external_data;
      std::uint64_t data = placed ? any_bits() : 0;
      const std::uint64_t zero = any_bits();
      if (!chance(20)) data &= ~zero;
      entry.bitmap = zero << 32 | data;
    }
    return entry;
  }
  std::uint64_t any_bits() {
    switch (draw(5)) {
      case 0:
        return 0;
      case 1:
        return 0xffff'ffff;
      case 2:
        return random_() & 0xffff'ffff;
      default: {
        const std::uint64_t low = draw(33);
        return 0xffff'ffffU & ~((std::uint64_t{1} << low) - 1);
      }
    }
  }

 private:
  std::mt19937_64 random_;
};

TEST(L2Entry, AgreesWithASlowReading) {
  const std::uint64_t first = test::seed();
  for (std::uint64_t seed = first; seed < first + 20'000; ++seed) {
    SCOPED_TRACE(test::repeat_with(seed));
    Lots lots(seed);
    const EntryRules rules = lots.any_rules();
    const std::uint64_t unit = rules.geometry.cluster_size();
    const std::uint64_t guest = lots.draw(50 * unit);
    const L2Entry entry = lots.any_entry(rules, guest, 7 * unit);

    const auto cluster = decode(entry, rules, guest);

    const std::optional<Plain> plain = read_plainly(entry, rules, guest);
    ASSERT_EQ(cluster.has_value(), plain.has_value())
        << std::hex << entry.descriptor << " " << entry.bitmap;
    if (!cluster) continue;
    ASSERT_EQ(cluster->compressed, plain->kind == RunKind::compressed);
    if (cluster->compressed) continue;
    ASSERT_EQ(cluster->has_host, plain->has_host);
    const bool keeps_all = cluster->has_host || !cluster->copied;  // COPIED alone says nothing
    if (keeps_all) {
      ASSERT_EQ(encode(*cluster, rules), entry);
    }
  }
}

TEST(L2Entry, L7_RunsGoOnAsLongAsNothingChangesAndNoFurther) {
  const std::uint64_t first = test::seed();
  for (std::uint64_t seed = first; seed < first + 20'000; ++seed) {
    SCOPED_TRACE(test::repeat_with(seed));
    Lots lots(seed);
    const EntryRules rules = lots.any_rules();
    const std::uint64_t unit = rules.geometry.cluster_size();
    constexpr std::uint64_t entries = 16;
    const std::uint64_t slice_at = entries * unit * lots.draw(3);
    std::vector<std::byte> slice(entries * rules.geometry.l2_entry_bytes());
    const bool alike = lots.chance(2);
    const std::uint64_t start = (2 + lots.draw(9)) * unit;
    for (std::uint64_t i = 0; i < entries; ++i) {
      const std::uint64_t at = slice_at + i * unit;
      L2Entry entry = lots.any_entry(rules, at, start + i * unit);
      if (alike && i > 0 && !lots.chance(8)) {
        entry = load_entry(slice, rules.geometry, i - 1);
        const bool moves = (entry.descriptor & offset_mask) != 0 || rules.external_data;
        if (moves && (entry.descriptor & compressed_bit) == 0) entry.descriptor += unit;
      }
      store_entry(slice, rules.geometry, i, entry);
    }
    const std::uint64_t within = lots.draw(entries * unit);
    const std::uint64_t guest = slice_at + within;
    const std::uint64_t length = 1 + lots.draw(2 * entries * unit);

    const auto run = find_run(slice, slice_at, guest, length, rules);

    const auto plain_at = [&](std::uint64_t at) {
      return read_plainly(load_entry(slice, rules.geometry, (at - slice_at) / unit), rules, at);
    };
    const std::optional<Plain> head = plain_at(guest);
    ASSERT_EQ(run.has_value(), head.has_value());
    if (!run) continue;
    ASSERT_EQ(run->kind, head->kind);
    ASSERT_TRUE(run->length > 0 && run->length <= length);
    ASSERT_LE(guest + run->length, slice_at + entries * unit);
    if (run->kind != RunKind::compressed) {
      ASSERT_EQ(run->kind != RunKind::data && run->reserved,
                run->kind != RunKind::data && head->has_host);
      if (head->has_host) {
        ASSERT_EQ(run->host, head->host);
        ASSERT_EQ(run->copied, head->copied);
      }
    }
    // one step is one subcluster: nothing changes within
    const std::uint64_t step = rules.geometry.subcluster_size();
    const auto continues = [&](std::uint64_t at) {
      const std::optional<Plain> there = plain_at(at);
      if (!there || there->kind != head->kind || there->has_host != head->has_host) return false;
      if (head->kind == RunKind::compressed) return at / unit == guest / unit;
      return !head->has_host ||
             (there->host == head->host + (at - guest) && there->copied == head->copied);
    };
    std::uint64_t end = guest / step * step + step;
    while (end < guest + length && end < slice_at + entries * unit && continues(end)) end += step;
    ASSERT_EQ(run->length, std::min(end - guest, length));
  }
}

}  // namespace
