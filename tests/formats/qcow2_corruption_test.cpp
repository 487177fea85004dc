// An image that contradicts itself: what is found while it runs marks it, fails it alone and is
// said once; what is found when it is opened keeps writers out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "formats/qcow2/layout.h"
#include "tests/support/graph_fixture.h"
#include "tests/support/qcow2_stack.h"

namespace {

using namespace formats::qcow2;
using test::code_of;
using test::Qcow2Stack;
using testing::HasSubstr;

constexpr std::uint64_t unit = 4096;

class File {
 public:
  explicit File(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}
  template <class T = std::uint64_t>
  T at(std::uint64_t where) const {
    Be<T> number;
    std::memcpy(&number, bytes_.data() + where, sizeof(number));
    return number;
  }
  template <class T = std::uint64_t>
  void put(std::uint64_t where, T number) {
    const Be<T> value = number;
    std::memcpy(bytes_.data() + where, &value, sizeof(value));
  }
  std::uint64_t l1() const { return at(40); }
  std::uint64_t l2() const { return at(l1()) & offset_mask; }
  std::uint64_t refcount_table() const { return at(48); }
  std::uint64_t refcount_block() const { return at(refcount_table()); }
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

std::vector<std::byte> written_image(sim::World& world, sim::Disk& disk, std::uint32_t version) {
  test::Qcow2Shape shape;
  shape.version = version;
  shape.geometry.cluster_bits = 12;
  shape.size = 64 * unit;
  disk.make("disk", test::empty_qcow2(shape));
  Qcow2Stack stack(world, "disk");
  EXPECT_OK(stack.write(0, std::string(3 * unit, 'a')));
  EXPECT_OK(stack.close());
  return disk.content("disk");
}

auto lines_with(const sim::World& world, std::string_view words) {
  return std::ranges::count_if(world.log.lines,
                               [&](const std::string& line) { return line.contains(words); });
}

class Corruption : public testing::Test {
 protected:
  sim::Disk disk_{1};
  sim::World world_{1, disk_};
};

class CorruptionAtRunTime : public Corruption, public testing::WithParamInterface<std::uint32_t> {};
INSTANTIATE_TEST_SUITE_P(Versions, CorruptionAtRunTime, testing::Values(2U, 3U));

TEST_P(CorruptionAtRunTime, MarksTheImageDurablyAndFailsItAlone) {
  File file(written_image(world_, disk_, GetParam()));
  disk_.make("other", file.bytes());
  file.put(file.l2(), file.refcount_table() | copied_bit);
  disk_.make("disk", file.bytes());
  Qcow2Stack stack(world_, "disk");
  Qcow2Stack other(world_, "other");
  ASSERT_OK(stack.opened());
  ASSERT_OK(other.opened());

  EXPECT_EQ(code_of(stack.write(5, "evil")), Errc::corrupt);

  EXPECT_EQ(code_of(stack.write(unit, "more")), Errc::corrupt);
  EXPECT_EQ(code_of(stack.read({unit, 5})), Errc::corrupt);
  EXPECT_EQ(code_of(stack.flush()), Errc::corrupt);
  EXPECT_EQ(lines_with(world_, "the image is corrupt"), 1);
  EXPECT_OK(other.write(unit, "good"));
  EXPECT_EQ(other.read({unit, 4}).value_or(""), "good");
  EXPECT_OK(other.close());
  disk_.crash();
  const File after(disk_.content("disk"));
  if (GetParam() == 2) {
    EXPECT_EQ(after.bytes(), file.bytes());
  } else {
    EXPECT_EQ(after.at(72), incompatible::corrupt);
    File marked = file;
    marked.put(72, incompatible::corrupt);
    EXPECT_EQ(after.bytes(), marked.bytes());
  }
}

TEST_F(Corruption, ThatIsMarkedKeepsWritersOutAndReadersIn) {
  File file(written_image(world_, disk_, 3));
  file.put(72, incompatible::corrupt);
  disk_.make("disk", file.bytes());

  {
    Qcow2Stack writer(world_, "disk");
    EXPECT_EQ(code_of(writer.opened()), Errc::permission_denied);
  }
  Qcow2Stack reader(world_, "disk", Qcow2Stack::Mode::read_only);

  ASSERT_OK(reader.opened());
  EXPECT_EQ(reader.read({unit, 2}).value_or(""), "aa");
  EXPECT_EQ(disk_.content("disk"), file.bytes());
}

// block-graph.md, section 4.8: images made to be believed. Every one is refused to writers in one
// line, and nothing is written to it.
struct Hostile {
  const char* name;
  std::function<void(File&)> spoil;
  const char* said;
  bool readable;  // what it holds may be rescued
};
void PrintTo(const Hostile& hostile, std::ostream* out) { *out << hostile.name; }

constexpr std::uint32_t much = 0x7fffffff;
const Hostile hostile_images[] = {
    // tables where other tables are
    {"l1_over_the_header", [](File& f) { f.put(40, std::uint64_t{0}); }, "l1_table_offset is 0",
     false},
    {"l1_over_refcounts", [](File& f) { f.put(40, f.refcount_table()); }, "refcount table", true},
    {"refcount_table_over_l1", [](File& f) { f.put(48, f.l1()); }, "where other metadata", true},
    {"block_over_l1", [](File& f) { f.put(f.refcount_table() + 8, f.l1()); }, "a refcount block",
     true},
    {"one_block_twice", [](File& f) { f.put(f.refcount_table() + 8, f.refcount_block()); },
     "a refcount block", true},
    {"l2_over_a_block", [](File& f) { f.put(f.l1(), f.refcount_block() | copied_bit); },
     "an L2 table", true},
    // CVE-2014-0144: fields that size something
    {"header_length", [](File& f) { f.put(100, much); }, "header_length", false},
    {"backing_offset", [](File& f) { f.put(8, std::uint64_t{much}); }, "backing", false},
    {"backing_length",
     [](File& f) {
       f.put(8, std::uint64_t{256});
       f.put(16, much);
     },
     "backing", false},
    {"cluster_bits", [](File& f) { f.put(20, std::uint32_t{63}); }, "cluster_bits", false},
    {"refcount_table_size", [](File& f) { f.put(56, much); }, "refcount table", false},
    {"refcount_table_offset", [](File& f) { f.put(48, ~std::uint64_t{0} << 12); }, "refcount table",
     false},
    {"l1_size", [](File& f) { f.put(36, much); }, "L1", false},
    {"l1_offset", [](File& f) { f.put(40, ~std::uint64_t{0} << 12); }, "L1", false},
    {"l1_too_small", [](File& f) { f.put(36, std::uint32_t{0}); }, "L1", false},
    {"disk_size", [](File& f) { f.put(24, ~std::uint64_t{0}); }, "", false},
    {"snapshot_count", [](File& f) { f.put(60, much); }, "snapshot", false},
    // CVE-2014-0143, CVE-2014-0145: snapshots
    {"snapshot_table_behind_the_end",
     [](File& f) {
       f.put(60, std::uint32_t{1});
       f.put(64, std::uint64_t{1} << 40);
     },
     "snapshot", false},
    {"snapshot_with_a_huge_l1",
     [](File& f) {
       f.put(60, std::uint32_t{1});
       f.put(64, 2 * unit);
       f.put(2 * unit, f.l1());
       f.put(2 * unit + 8, much);
     },
     "", false},
};

class HostileImage : public Corruption, public testing::WithParamInterface<Hostile> {};
INSTANTIATE_TEST_SUITE_P(Section48, HostileImage, testing::ValuesIn(hostile_images),
                         [](const auto& chosen) { return std::string(chosen.param.name); });

TEST_P(HostileImage, IsRefusedToWritersInOneLine) {
  const Hostile& hostile = GetParam();
  File file(written_image(world_, disk_, 3));
  hostile.spoil(file);
  disk_.make("disk", file.bytes());

  Result<> opened = ok;
  {
    Qcow2Stack writer(world_, "disk");
    opened = writer.opened();
  }
  Qcow2Stack reader(world_, "disk", Qcow2Stack::Mode::read_only);

  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().message, HasSubstr("disk: qcow2: "));
  EXPECT_THAT(opened.error().message, HasSubstr(hostile.said));
  EXPECT_THAT(opened.error().message, Not(HasSubstr("\n")));
  EXPECT_EQ(reader.opened().has_value(), hostile.readable);
  EXPECT_EQ(disk_.content("disk"), file.bytes());
}

}  // namespace
