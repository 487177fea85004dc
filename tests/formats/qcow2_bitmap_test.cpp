// Dirty bitmaps that an image keeps: there again when it is opened again, in use while it is
// written, never wrong after a crash; what can't be is refused, what nobody knows is kept.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "formats/qcow2/header.h"
#include "graph/bitmap_change.h"
#include "graph/snapshot_change.h"
#include "tests/support/graph_fixture.h"
#include "tests/support/qcow2_stack.h"
#include "tests/support/seed.h"

namespace {

using formats::qcow2::Header;
using formats::qcow2::RawBitmapEntry;
using graph::DirtyBitmap;
using test::code_of;
using test::message_of;
using test::Qcow2Stack;
using testing::HasSubstr;
namespace autoclear = formats::qcow2::autoclear;
namespace bitmap_flag = formats::qcow2::bitmap_flag;

struct Shown {
  const char* name;
  unsigned cluster_bits;
  unsigned refcount_order;
  bool backing;
};
constexpr Shown shapes[] = {{"tiny", 9, 4, false},
                            {"tiny_overlay", 9, 6, true},
                            {"two_sectors", 10, 4, true},
                            {"middle", 12, 4, true},
                            {"usual", 16, 4, false}};

// An image on a simulated disk, its process, and the bytes that it consists of.
class Bitmaps : public testing::TestWithParam<Shown> {
 protected:
  Bitmaps() {
    const Shown& shown = GetParam();
    shape_.geometry.cluster_bits = shown.cluster_bits;
    shape_.geometry.refcount_order = shown.refcount_order;
    shape_.size = 90 * unit() + 700;
    if (shown.backing) {
      shape_.backing = "base";
      disk.make("base", std::vector<std::byte>(9 * unit(), std::byte{'b'}));
    }
    disk.make("disk", test::empty_qcow2(shape_));
    open();
  }

  std::uint64_t unit() const { return shape_.geometry.cluster_size(); }
  void open(Qcow2Stack::Mode mode = Qcow2Stack::Mode::writable, const char* path = "disk") {
    stack.reset();
    stack = std::make_unique<Qcow2Stack>(world, path, mode);
    ASSERT_TRUE(stack->opened()) << stack->opened().error().message;
  }
  void reopen() {
    EXPECT_OK(stack->close());
    open();
  }
  Result<> add(std::string name, std::uint64_t granularity = 512) {
    graph::BitmapTraits traits;
    traits.persistent = true;
    auto added = world.run(graph::add_bitmap(stack->node(), std::move(name), granularity, traits));
    if (!added) return std::unexpected(std::move(added).error());
    return ok;
  }
  Result<> remove(std::string_view name) {
    return world.run(graph::remove_bitmap(stack->node(), name));
  }
  Result<> resize(std::uint64_t size) {
    graph::ViewOptions options("a test");
    options.policy = graph::RangePolicy::growable;
    options.access.taken =
        options.access.taken | graph::Permission::write | graph::Permission::resize;
    auto view = world.run(stack->graph().attach(stack->graph().find("disk"), std::move(options)));
    if (!view) return std::unexpected(std::move(view).error());
    Result<> done = world.run((*view)->resize(size));
    EXPECT_OK(world.run(stack->graph().detach(*std::move(view))));
    return done;
  }
  DirtyBitmap* find(std::string_view name) { return stack->node().bitmaps().find(name); }
  std::vector<DirtyBitmap::Extent> dirty(std::string_view name) {
    return find(name)->extents({0, find(name)->size()}, 1000);
  }
  Header header() { return formats::qcow2::parse_header(file(), file().size()).value(); }
  std::vector<std::byte> file() { return disk.content("disk"); }
  std::uint64_t directory() { return header().bitmaps->directory_offset; }
  // The first entry of the directory.
  RawBitmapEntry entry() {
    RawBitmapEntry raw;
    std::memcpy(&raw, file().data() + directory(), sizeof(raw));
    return raw;
  }
  template <class T>
  void put(std::uint64_t at, const T& value) {
    std::vector<std::byte> bytes = file();
    std::memcpy(bytes.data() + at, &value, sizeof(value));
    disk.make("disk", std::move(bytes));
  }
  void put_entry(const RawBitmapEntry& raw) { put(directory(), raw); }
  // The error of opening the image as it is now.
  std::string refusal() {
    Qcow2Stack hostile(world, "disk", Qcow2Stack::Mode::read_only);
    return message_of(hostile.opened());
  }
  void expect_clean() {
    EXPECT_OK(stack->close());
    const test::Qcow2Audit audit = test::audit_qcow2(file());
    EXPECT_TRUE(audit.errors.empty()) << audit.errors.front();
    EXPECT_EQ(audit.leaked, 0U);
  }

  const std::uint64_t seed = test::seed();
  sim::Disk disk{seed};
  sim::World world{seed, disk};
  test::Qcow2Shape shape_;
  std::unique_ptr<Qcow2Stack> stack;
};
INSTANTIATE_TEST_SUITE_P(Images, Bitmaps, testing::ValuesIn(shapes),
                         [](const auto& chosen) { return std::string(chosen.param.name); });

TEST_P(Bitmaps, AreThereAgainWhenTheImageIsOpenedAgain) {
  ASSERT_OK(add("first"));
  ASSERT_OK(add("second", 4096));
  ASSERT_OK(stack->write(3 * unit() + 5, "some"));
  ASSERT_OK(graph::disable_bitmap(stack->node(), "second"));
  ASSERT_OK(stack->write(shape_.size - 1, "x"));
  const auto first = dirty("first");
  const auto second = dirty("second");
  EXPECT_EQ(find("first")->dirty_bytes(), 1024U);

  reopen();

  ASSERT_NE(find("first"), nullptr);
  ASSERT_NE(find("second"), nullptr);
  EXPECT_EQ(dirty("first"), first);
  EXPECT_EQ(dirty("second"), second);
  EXPECT_TRUE(find("first")->enabled());
  EXPECT_FALSE(find("second")->enabled());
  EXPECT_TRUE(find("first")->persistent());
  EXPECT_EQ(find("second")->granularity(), 4096U);
  expect_clean();
}

TEST_P(Bitmaps, AllOfOneKindTakeNoClusters) {
  ASSERT_OK(add("full"));
  ASSERT_OK(add("empty"));
  ASSERT_OK(graph::clear_bitmap(stack->node(), "empty"));
  find("full")->mark({0, shape_.size});
  reopen();
  EXPECT_EQ(dirty("full"), (std::vector<DirtyBitmap::Extent>{{shape_.size, true}}));
  EXPECT_EQ(dirty("empty"), (std::vector<DirtyBitmap::Extent>{{shape_.size, false}}));
  EXPECT_OK(stack->close());
  const std::uint64_t with_both = test::audit_qcow2(file()).used;
  open();
  find("full")->clean({0, 3 * unit()});
  EXPECT_OK(stack->close());
  EXPECT_GT(test::audit_qcow2(file()).used, with_both);
  expect_clean();
}

TEST_P(Bitmaps, AreInUseFromTheFirstChangeToTheEnd) {
  ASSERT_OK(add("b"));
  reopen();
  disk.make("before", file());
  ASSERT_OK(stack->write(0, "x"));
  disk.make("during", file());
  EXPECT_OK(stack->close());
  const auto is_believed = [&](const char* path) {
    open(Qcow2Stack::Mode::read_only, path);
    return !find("b")->inconsistent();
  };
  EXPECT_TRUE(is_believed("before"));
  EXPECT_FALSE(is_believed("during"));
  EXPECT_TRUE(is_believed("disk"));
}

TEST_P(Bitmaps, ThatAreInUseAreGoodForRemovalOnly) {
  ASSERT_OK(add("b"));
  reopen();
  ASSERT_OK(stack->write(0, "x"));
  disk.make("crashed", file());
  open(Qcow2Stack::Mode::writable, "crashed");
  EXPECT_EQ(code_of(graph::clear_bitmap(stack->node(), "b")), Errc::invalid_argument);
  EXPECT_THAT(message_of(resize(2 * shape_.size)), HasSubstr("bitmap 'b' is inconsistent"));
  ASSERT_OK(stack->write(5 * unit(), "y"));
  EXPECT_OK(stack->close());
  open(Qcow2Stack::Mode::writable, "crashed");
  EXPECT_TRUE(find("b")->inconsistent());
  EXPECT_OK(remove("b"));
  EXPECT_OK(stack->close());
  const test::Qcow2Audit audit = test::audit_qcow2(disk.content("crashed"));
  EXPECT_TRUE(audit.errors.empty()) << audit.errors.front();
  EXPECT_EQ(audit.leaked, 0U);
}

TEST_P(Bitmaps, RemovedTheyLeaveNothingBehind) {
  EXPECT_OK(stack->close());
  const std::uint64_t used = test::audit_qcow2(file()).used;
  open();
  ASSERT_OK(add("a"));
  ASSERT_OK(add("b"));
  find("a")->mark({unit(), 1});
  reopen();
  ASSERT_OK(remove("a"));
  EXPECT_EQ(header().bitmaps->count, 1U);  // at once
  ASSERT_OK(remove("b"));
  EXPECT_FALSE(header().bitmaps);
  EXPECT_EQ(header().autoclear_features, 0U);
  EXPECT_EQ(header().backing_file, shape_.backing);
  expect_clean();
  EXPECT_EQ(test::audit_qcow2(file()).used, used);
}

TEST_P(Bitmaps, ChangedWithoutAWriteAreStored) {
  ASSERT_OK(add("b"));
  find("b")->mark({2 * unit(), 1});
  reopen();
  ASSERT_OK(graph::disable_bitmap(stack->node(), "b"));
  reopen();
  EXPECT_FALSE(find("b")->enabled());
  EXPECT_EQ(find("b")->dirty_bytes(), 512U);
  ASSERT_OK(graph::clear_bitmap(stack->node(), "b"));
  reopen();
  EXPECT_EQ(find("b")->dirty_bytes(), 0U);
  const auto before = file();
  reopen();
  EXPECT_EQ(file(), before);  // nothing to be stored
  expect_clean();
}

TEST_P(Bitmaps, OfAReadOnlyImageAreReadOnly) {
  ASSERT_OK(add("b"));
  EXPECT_OK(stack->close());
  const auto before = file();
  open(Qcow2Stack::Mode::read_only);
  EXPECT_TRUE(find("b")->read_only());
  EXPECT_EQ(code_of(remove("b")), Errc::permission_denied);
  EXPECT_EQ(code_of(add("c")), Errc::permission_denied);
  EXPECT_OK(stack->close());
  EXPECT_EQ(file(), before);
}

TEST_P(Bitmaps, FollowTheSizeOfTheDisk) {
  ASSERT_OK(add("b"));
  ASSERT_OK(stack->write(shape_.size - 1, "x"));
  ASSERT_OK(resize(2 * shape_.size + 3));
  reopen();
  EXPECT_EQ(find("b")->size(), 2 * shape_.size + 3);
  EXPECT_EQ(find("b")->dirty_bytes(), 512U);
  EXPECT_EQ(code_of(world.run(stack->node().resize(0))), Errc::invalid_argument);
  expect_clean();
}

TEST_P(Bitmaps, KnowThatASnapshotChangedEverything) {
  ASSERT_OK(stack->write(unit(), "x"));
  ASSERT_OK(add("on"));
  ASSERT_OK(add("off"));
  ASSERT_OK(graph::disable_bitmap(stack->node(), "off"));
  ASSERT_OK(world.run(graph::take_snapshot(stack->node(), "s")));
  EXPECT_EQ(find("on")->dirty_bytes(), 0U);
  ASSERT_OK(stack->apply("s"));
  EXPECT_EQ(dirty("on"), (std::vector<DirtyBitmap::Extent>{{shape_.size, true}}));
  EXPECT_EQ(find("off")->dirty_bytes(), 0U);
  expect_clean();
}

TEST_P(Bitmaps, AreForgottenWhenSomebodyWroteWithoutThem) {
  ASSERT_OK(add("b"));
  EXPECT_OK(stack->close());
  const Header known = header();
  // what a program does that knows no bitmaps
  std::vector<std::byte> bytes = file();
  Header ignorant = known;
  ignorant.autoclear_features = 0;
  formats::qcow2::patch_header(std::span(bytes).first(512), ignorant);
  disk.make("disk", std::move(bytes));
  open();
  EXPECT_EQ(find("b"), nullptr);
  EXPECT_TRUE(header().bitmaps);
  ASSERT_OK(stack->write(0, "x"));
  EXPECT_FALSE(header().bitmaps);
  ASSERT_OK(add("b"));
  reopen();
  EXPECT_EQ(find("b")->dirty_bytes(), 0U);
  EXPECT_EQ(*stack->read({0, 1}), "x");
}

TEST_P(Bitmaps, OfUnknownKindsAreKept) {
  ASSERT_OK(add("strange"));
  EXPECT_OK(stack->close());
  RawBitmapEntry raw = entry();
  raw.type = 7;
  raw.flags = 0;
  put_entry(raw);
  open();
  EXPECT_EQ(find("strange"), nullptr);
  EXPECT_THAT(message_of(add("strange")), HasSubstr("the name is taken"));
  ASSERT_OK(add("known"));
  ASSERT_OK(stack->write(0, "x"));
  EXPECT_THAT(message_of(resize(2 * shape_.size)), HasSubstr("of a kind that is not known"));
  EXPECT_OK(stack->close());
  EXPECT_EQ(std::memcmp(bytes_of(entry()).data(), bytes_of(raw).data(), sizeof(raw)), 0);
  // one that should record is out of step
  raw = entry();
  raw.type = formats::qcow2::dirty_tracking_bitmap;
  raw.flags = bitmap_flag::automatic | 0x100;
  put_entry(raw);
  open();
  ASSERT_OK(stack->write(0, "y"));
  EXPECT_OK(stack->close());
  EXPECT_EQ(entry().flags, bitmap_flag::automatic | bitmap_flag::in_use | 0x100U);
  expect_clean();
}

TEST_P(Bitmaps, AreRefusedWhereTheyCantBe) {
  ASSERT_OK(add("b"));
  find("b")->mark({unit(), 1});
  EXPECT_OK(stack->close());
  const RawBitmapEntry good = entry();
  const std::uint64_t end = align_up(file().size(), unit());
  RawBitmapEntry raw = good;
  raw.table_offset = end;
  put_entry(raw);
  EXPECT_THAT(refusal(), HasSubstr("leaves the file"));
  raw.table_offset = unit();  // the refcount table
  put_entry(raw);
  EXPECT_THAT(refusal(), HasSubstr("overlaps other metadata"));
  put_entry(good);
  const std::uint64_t table = good.table_offset;
  put(table, Be<std::uint64_t>(table));
  EXPECT_THAT(refusal(), HasSubstr("overlap other metadata"));
  put(table, Be<std::uint64_t>(end));
  EXPECT_THAT(refusal(), HasSubstr("leave the file"));
  put(table, Be<std::uint64_t>(6));
  EXPECT_THAT(refusal(), HasSubstr("entry 0 of the table is 0x6"));
  put(table, Be<std::uint64_t>(0));
  EXPECT_EQ(refusal(), "(success)");
  raw = good;
  raw.name_size = 1000;
  put_entry(raw);
  EXPECT_THAT(refusal(), HasSubstr("ends within it"));
}

TEST_P(Bitmaps, OfTheDirectoryStayInTheFile) {
  ASSERT_OK(add("b"));
  EXPECT_OK(stack->close());
  Header lying = header();
  lying.bitmaps->directory_offset = align_up(file().size(), unit()) * 2;
  const auto bytes = formats::qcow2::format_header(lying);
  ASSERT_OK(bytes);
  std::vector<std::byte> all = file();
  std::ranges::copy(*bytes, all.begin());
  disk.make("disk", all);
  EXPECT_THAT(refusal(), HasSubstr("leaves the file"));
  lying.bitmaps->directory_offset = unit();
  std::ranges::copy(*formats::qcow2::format_header(lying), all.begin());
  disk.make("disk", all);
  EXPECT_THAT(refusal(), HasSubstr("overlaps other metadata"));
}

TEST(BitmapsOfOldImages, AreNotStored) {
  sim::Disk disk{1};
  sim::World world{1, disk};
  test::Qcow2Shape shape;
  shape.version = 2;
  disk.make("disk", test::empty_qcow2(shape));
  Qcow2Stack stack(world, "disk");
  ASSERT_OK(stack.opened());
  graph::BitmapTraits traits;
  traits.persistent = true;
  EXPECT_EQ(code_of(world.run(graph::add_bitmap(stack.node(), "b", 512, traits))),
            Errc::not_supported);
}

// The power fails at some call of a life with bitmaps. The first one is there from the first
// session on and never cleared: what differs from the disk's first content is dirty in it, or it is
// believed by nobody.
class Life {
 public:
  Life(std::uint64_t seed, const Shown& shown)
      : backing_(shown.backing), disk_(seed), world_(seed, disk_) {
    shape_.geometry.cluster_bits = shown.cluster_bits;
    shape_.geometry.refcount_order = shown.refcount_order;
    shape_.size = 60 * shape_.geometry.cluster_size() + draw(3000);
    if (backing_) {
      shape_.backing = "base";
      disk_.make("base", std::vector<std::byte>(shape_.size, std::byte{'b'}));
    }
    disk_.traits.whole_sectors = true;
    disk_.make("disk", test::empty_qcow2(shape_));
    disk_.chaos = {4, 20, 2};
  }

  void run() {
    session([&] { add("always"); });
    check(Expected::clean);
    for (std::uint64_t i = draw(3); i > 0; --i) {
      session([&] { live(); });
      check(Expected::clean);
    }
    // often soon after the first change
    disk_.power_off_after(static_cast<unsigned>(1 + draw(draw(2) == 0 ? 200 : 30)));
    session([&] {
      if (draw(2) == 0) (void)stack_->write(draw(shape_.size), "w");
      live();
    });
    disk_.crash();
    check(Expected::crashed);
  }

 private:
  enum class Expected : std::uint8_t { clean, crashed };
  std::uint64_t draw(std::uint64_t n) { return world_.scheduler.choose(n); }

  void session(auto body) {
    Qcow2Stack stack(world_, "disk");
    stack_ = &stack;
    if (stack.opened()) body();
    (void)stack.close();
  }
  void add(std::string name) {
    graph::BitmapTraits traits;
    traits.persistent = true;
    traits.enabled = draw(2) == 0 || name == "always";
    (void)world_.run(graph::add_bitmap(stack_->node(), std::move(name), 512, traits));
  }
  void live() {
    for (std::uint64_t i = draw(12); i > 0; --i) {
      const std::string other = "other" + std::to_string(draw(3));
      switch (draw(8)) {
        case 0:
          add(other + std::string(draw(40), 'x'));
          break;
        case 1: {
          const auto& all = stack_->node().bitmaps().all();
          const std::string name = all[draw(all.size())]->name();
          if (name != "always") (void)world_.run(graph::remove_bitmap(stack_->node(), name));
          break;
        }
        case 2:
          (void)graph::clear_bitmap(stack_->node(), other);
          break;
        case 3:
          (void)stack_->flush();
          break;
        default:
          (void)stack_->write(draw(shape_.size - 2000), std::string(1 + draw(2000), 'w'));
      }
    }
  }

  void check(Expected expected) {
    const test::Qcow2Audit audit = test::audit_qcow2(disk_.content("disk"));
    ASSERT_TRUE(audit.errors.empty()) << audit.errors.front();
    if (expected == Expected::clean) {
      ASSERT_EQ(audit.leaked, 0U);
    }
    sim::World world(1, disk_);
    Qcow2Stack again(world, "disk", Qcow2Stack::Mode::read_only);
    ASSERT_TRUE(again.opened()) << again.opened().error().message;
    const Result<std::string> content = again.read({0, shape_.size});
    ASSERT_TRUE(content) << content.error().message;
    const DirtyBitmap* always = again.node().bitmaps().find("always");
    ASSERT_NE(always, nullptr);
    if (expected == Expected::clean) {
      ASSERT_FALSE(always->inconsistent());
    }
    if (always->inconsistent()) return;
    const char first = backing_ ? 'b' : '\0';
    for (std::uint64_t at = 0; at < shape_.size; ++at) {
      if ((*content)[at] == first) continue;
      ASSERT_EQ(always->dirty_bytes_in({at, 1}), 1U) << "byte " << at << " changed";
    }
  }

  const bool backing_;
  test::Qcow2Shape shape_;
  sim::Disk disk_;
  sim::World world_;
  Qcow2Stack* stack_ = nullptr;
};

TEST_P(Bitmaps, AreRightOrInUseAfterAPowerCut) {
  EXPECT_OK(stack->close());
  const std::uint64_t first = test::seed();
  const unsigned lives = GetParam().cluster_bits > 12 ? 20 : 300;
  for (std::uint64_t each = first; each < first + lives && !HasFailure(); ++each) {
    SCOPED_TRACE(test::repeat_with(each));
    Life life(each, GetParam());
    life.run();
  }
}

// With the first bitmap an extension comes into the header, with the last one it goes, and what is
// behind it moves: among it the name of the backing file.
TEST_P(Bitmaps, ComeAndGoWithAWholeHeader) {
  EXPECT_OK(stack->close());
  stack.reset();
  const auto try_at = [&](unsigned call, std::uint64_t each) {
    sim::Disk medium{each};
    medium.traits.whole_sectors = true;
    medium.make("base", std::vector<std::byte>(shape_.size, std::byte{'b'}));
    medium.make("disk", file());
    bool ended = false;
    {
      sim::World process{each, medium};
      Qcow2Stack image(process, "disk");
      EXPECT_TRUE(image.opened());
      medium.power_off_after(call);
      graph::BitmapTraits traits;
      traits.persistent = true;
      (void)process.run(graph::add_bitmap(image.node(), "b", 512, traits));
      ended = image.close().has_value();
      if (ended) {
        Qcow2Stack again(process, "disk");
        ended = again.opened().has_value();
        if (ended) (void)process.run(graph::remove_bitmap(again.node(), "b"));
        ended = again.close().has_value() && ended;
      }
    }
    medium.crash();
    sim::World process{each, medium};
    Qcow2Stack image(process, "disk", Qcow2Stack::Mode::read_only);
    EXPECT_OK(image.opened());
    if (image.opened()) {
      EXPECT_EQ(*image.read({0, 1}), shape_.backing.empty() ? std::string(1, '\0') : "b");
    }
    return ended;
  };
  for (unsigned call = 1; !HasFailure(); ++call) {
    SCOPED_TRACE("cut at call " + std::to_string(call));
    bool ended = false;
    for (std::uint64_t each = seed; each < seed + 12 && !HasFailure(); ++each) {
      SCOPED_TRACE(test::repeat_with(each));
      ended = try_at(call, each);
    }
    if (ended) break;
  }
}

}  // namespace
