// A new qcow2 image: nothing that is half made can be taken for one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/qcow2/create.h"
#include "formats/qcow2/header.h"
#include "tests/support/graph_fixture.h"

namespace formats::qcow2 {
namespace {

using test::code_of;
using test::message_of;
using testing::HasSubstr;

class Qcow2Create : public test::GraphTest {
 protected:
  Result<> make(test::View& view,
                std::initializer_list<std::pair<std::string, std::string>> words) {
    const std::vector<std::pair<std::string, std::string>> list(words);
    const auto options = parse_create_options(list);
    if (!options) return std::unexpected(options.error());
    MediumOf<test::View> medium(view);
    return run(create(medium, nullptr, *options, {}));
  }
  static Result<Header> header_of(const std::string& content) {
    return parse_header(bytes_of(content), content.size());
  }
};

TEST_F(Qcow2Create, WritesTheHeaderLastAndMakesAllDurable) {
  test::Disk& file = disk("file", 0);

  ASSERT_OK(make(grower(file), {{"size", "10M"}, {"cluster_size", "4K"}}));

  std::vector<std::string> calls = file.script.calls;
  std::erase(calls, "drop caches");  // the other half of a flush
  ASSERT_GE(calls.size(), 3U);
  EXPECT_EQ(calls[calls.size() - 3], "flush");
  EXPECT_EQ(calls[calls.size() - 2], "write 0+4096");
  EXPECT_EQ(calls[calls.size() - 1], "flush");
  EXPECT_EQ(std::ranges::count(calls, "write 0+4096"), 1);
  const auto header = header_of(file.durable);
  ASSERT_OK(header);
  EXPECT_EQ(header->size, 10 * MiB);
}

TEST_F(Qcow2Create, ThatFailsAnywhereLeavesNoImage) {
  const auto attempt = [](unsigned failing, std::string old) {
    test::Bench bench;
    test::Disk& file = bench.disk("file", std::move(old));
    file.script.fail("", Errc::no_space, failing);
    MediumOf<test::View> medium(bench.grower(file));
    CreateOptions options;
    options.size = MiB;
    options.geometry.cluster_bits = 12;
    options.preallocation = Preallocation::full;
    const Result<> done = bench.run(create(medium, nullptr, options, {}));
    return std::pair(done, file.content);
  };
  const auto [made, image] = attempt(1'000'000, "");
  ASSERT_OK(made);
  unsigned step = 1;
  for (;; ++step) {
    SCOPED_TRACE("call " + std::to_string(step));
    const auto [done, content] = attempt(step, image);
    if (done) break;
    EXPECT_EQ(code_of(done), Errc::no_space);
    // the first call is the one that makes the old image disappear, the last two follow the header
    if (content != image) {
      EXPECT_FALSE(header_of(content));
    }
    ASSERT_LT(step, 100U);
  }
  EXPECT_GT(step, 8U);
}

TEST_F(Qcow2Create, OnADeviceZeroesWhatWasThere) {
  test::Disk& device = disk("device", std::string(MiB, 'x'));
  device.grows = graph::Growth::never;
  refresh();

  ASSERT_OK(make(grower(device), {{"size", "64M"}, {"cluster_size", "4K"}}));

  const auto header = header_of(device.content);
  ASSERT_OK(header);
  const std::string l1 = device.content.substr(header->l1_table_offset, header->l1_size * 8);
  EXPECT_EQ(l1, std::string(l1.size(), '\0'));
  EXPECT_EQ(device.content.size(), MiB);
}

TEST_F(Qcow2Create, ADeviceThatIsTooShortIsLeftAlone) {
  test::Disk& device = disk("device", std::string(12 * KiB, 'x'));
  device.grows = graph::Growth::never;
  refresh();

  const auto refused = make(grower(device), {{"size", "64M"}, {"cluster_size", "4K"}});

  EXPECT_EQ(code_of(refused), Errc::no_space);
  EXPECT_THAT(message_of(refused), HasSubstr("needs 16384 bytes, its device has 12288"));
  EXPECT_EQ(device.content, std::string(12 * KiB, 'x'));
}

TEST_F(Qcow2Create, RefusesWhatCouldNotBeCounted) {
  test::Disk& file = disk("file", 0);
  const auto refused = make(grower(file), {{"size", "64G"},
                                           {"cluster_size", "512"},
                                           {"refcount_bits", "64"},
                                           {"preallocation", "metadata"}});
  EXPECT_EQ(code_of(refused), Errc::no_space);
  EXPECT_THAT(message_of(refused), HasSubstr("more than an image can count"));
  EXPECT_EQ(file.content, "");
}

}  // namespace
}  // namespace formats::qcow2
