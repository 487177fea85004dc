#include "tests/support/qcow2_fuzz.h"

#include <gtest/gtest.h>

#include <vector>

#include "formats/qcow2/bitmap_directory.h"
#include "formats/qcow2/header.h"
#include "formats/qcow2/snapshot_table.h"

namespace test {
namespace {

using namespace formats::qcow2;

template <class T>
void expect_reason(const Result<T>& parsed) {
  if (parsed) return;
  EXPECT_TRUE(parsed.error().code == Errc::corrupt || parsed.error().code == Errc::not_supported ||
              parsed.error().code == Errc::invalid_argument);
  EXPECT_TRUE(parsed.error().message.starts_with("qcow2: ")) << parsed.error().message;
}

}  // namespace

void feed_qcow2_header(std::string_view bytes) {
  const auto parsed = parse_header(bytes_of(bytes), bytes.size());
  expect_reason(parsed);
  if (!parsed) return;
  const auto formatted = format_header(*parsed);
  if (!formatted) {  // names of features were longer, or more, than they have to be
    EXPECT_EQ(formatted.error().code, Errc::no_space);
    return;
  }
  EXPECT_EQ(formatted->size(), parsed->cluster_size());
  auto again = parse_header(*formatted, formatted->size());
  ASSERT_TRUE(again) << again.error().message;
  Header wanted = *parsed;
  wanted.feature_names = again->feature_names;
  EXPECT_TRUE(*again == wanted);
}

void feed_qcow2_snapshots(std::string_view bytes) {
  std::vector<Snapshot> snapshots;
  auto rest = bytes_of(bytes);
  while (!rest.empty()) {
    const auto parsed = parse_snapshot(rest, 0);
    expect_reason(parsed);
    EXPECT_TRUE(parse_snapshot(rest, 0, ExtraData::drop) || !parsed);
    if (!parsed) break;
    EXPECT_EQ(snapshot_entry_bytes(rest), parsed->bytes);
    EXPECT_LE(parsed->bytes, snapshot_entry_bytes_max);
    snapshots.push_back(parsed->snapshot);
    if (parsed->bytes >= rest.size()) break;
    rest = rest.subspan(parsed->bytes);
  }
  const auto formatted = format_snapshots(snapshots);
  ASSERT_TRUE(formatted) << formatted.error().message;
  auto table = std::span<const std::byte>(*formatted);
  for (Snapshot& each : snapshots) {
    const auto parsed = parse_snapshot(table, 0);
    ASSERT_TRUE(parsed) << parsed.error().message;
    if (!each.disk_size) each.disk_size = 0;  // what is written always has the field
    EXPECT_TRUE(parsed->snapshot == each);
    table = table.subspan(std::min<std::uint64_t>(parsed->bytes, table.size()));
  }
}

void feed_qcow2_bitmaps(std::string_view bytes) {
  if (bytes.size() < 2) return;
  Geometry geometry;
  geometry.cluster_bits = 9 + static_cast<unsigned char>(bytes[0]) % 13;
  const auto count = static_cast<unsigned char>(bytes[1]);
  const auto parsed = parse_bitmap_directory(bytes_of(bytes.substr(2)), count, geometry, 64 * MiB);
  expect_reason(parsed);
  if (!parsed) return;
  const auto formatted = format_bitmap_directory(*parsed);
  ASSERT_TRUE(formatted) << formatted.error().message;
  const auto again = parse_bitmap_directory(*formatted, count, geometry, 64 * MiB);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_TRUE(*again == *parsed);
}

}  // namespace test
