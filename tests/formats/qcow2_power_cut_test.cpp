// The power fails while a qcow2 image is written to: it opens, nothing but leaks is wrong with it,
// what was flushed is there, and no byte shows what was never written to its place.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "graph/snapshot_change.h"
#include "tests/support/history.h"
#include "tests/support/qcow2_stack.h"
#include "tests/support/seed.h"

namespace {

using test::Qcow2Stack;

struct Variant {
  const char* name;
  std::uint32_t version;
  unsigned cluster_bits;
  unsigned refcount_order;
  bool extended;
  bool backing;
  Qcow2Stack::Caching caching = Qcow2Stack::Caching::buffered;
  bool lazy = false;
};
constexpr Variant variants[] = {
    {"tiny", 3, 9, 4, false, false},
    {"tiny_wide", 3, 9, 6, false, false},
    {"tiny_bits", 3, 9, 0, false, true},
    {"v2", 2, 9, 4, false, false},
    {"v2_overlay", 2, 12, 4, false, true},
    {"overlay", 3, 12, 4, false, true},
    {"direct", 3, 12, 4, false, true, Qcow2Stack::Caching::direct},
    {"extended", 3, 14, 4, true, false},
    {"extended_overlay", 3, 14, 4, true, true},
    {"lazy", 3, 10, 4, false, true, Qcow2Stack::Caching::buffered, true},
};

class Trial {
 public:
  Trial(std::uint64_t seed, const Variant& variant)
      : variant_(variant), disk_(seed), world_(seed, disk_) {
    shape_.version = variant.version;
    shape_.geometry.cluster_bits = variant.cluster_bits;
    shape_.geometry.refcount_order = variant.version < 3 ? 4 : variant.refcount_order;
    shape_.geometry.extended_l2 = variant.extended;
    const std::uint64_t unit = shape_.geometry.cluster_size();
    busy_ = 12 * unit;
    shape_.size = 100 * unit + draw(unit);
    if (variant.backing) shape_.backing = "base";
    if (variant.lazy) shape_.compatible = formats::qcow2::compatible::lazy_refcounts;
    disk_.traits.zeroes_ranges = chance(2);
    disk_.traits.whole_sectors = true;
    disk_.traits.is_quick = !chance(3);
    disk_.make("disk", test::empty_qcow2(shape_));
    // somewhat shorter than the disk
    if (variant.backing)
      disk_.make("base", std::vector<std::byte>(7 * unit + unit / 2, std::byte{'b'}));
    stack_ =
        std::make_unique<Qcow2Stack>(world_, "disk", Qcow2Stack::Mode::writable, variant.caching);
    disk_.chaos = {4, 20, 2};
    if (chance(4)) disk_.fail_some(sim::Call::sync, 4, EIO);
    if (chance(4)) disk_.fail_some(sim::Call::write, 20, EIO);
    if (chance(4)) disk_.fail_some(sim::Call::read, 30, EIO);
  }

  void run() {
    ASSERT_TRUE(stack_->opened()) << stack_->opened().error().message;
    disk_.power_off_after(static_cast<unsigned>(1 + draw(250)));
    for (int i = 0; i < 100; ++i) {
      const std::size_t beside = 1 + draw(6);
      world_.scheduler.run_until([&] { return gate_.inside() < beside; });
      spawn(world_.home.executor, gate_.enter_anyway(), operation());
    }
    world_.scheduler.run_until([&] { return gate_.inside() == 0; });
    disk_.power_off();
    stack_.reset();
    disk_.crash();
    check();
  }

 private:
  std::uint64_t draw(std::uint64_t n) { return world_.scheduler.choose(n); }
  bool chance(std::uint64_t one_in) { return world_.scheduler.one_in(one_in); }

  asio::awaitable<void> operation() {
    const std::uint64_t kind = draw(12);
    if (kind <= 1) {
      co_await flush();
    } else if (kind == 2 && chance(4)) {
      co_await snapshot();
    } else {
      co_await change(kind);
    }
  }

  asio::awaitable<void> flush() {
    const std::uint64_t begun = history_.begin_flush();
    const Result<> done = co_await stack_->view().flush();
    if (done) history_.end_flush(begun);
  }

  // Takes one, and says what the disk is at that moment; or deletes one.
  asio::awaitable<void> snapshot() {
    if (!taken_.empty() && chance(2)) {
      const std::string name = taken_.begin()->first;
      taken_.erase(name);
      (void)co_await graph::delete_snapshot(stack_->node(), name);
      co_return;
    }
    const std::string name = "s" + std::to_string(++snapshots_);
    const Result<graph::Port> port = co_await graph::take_snapshot(stack_->node(), name);
    if (!port) co_return;
    graph::ViewOptions options("export 'snapshot'");
    options.port = name;
    auto view = co_await stack_->graph().attach(stack_->graph().find("disk"), std::move(options));
    if (!view) co_return;
    std::string content(std::min(shape_.size, busy_), '?');
    const Buffers list(std::as_writable_bytes(std::span(content)));
    const Result<> read = co_await (*view)->read(0, list);
    (void)co_await stack_->graph().detach(*std::move(view));
    if (read) taken_[name] = std::move(content);
  }

  asio::awaitable<void> change(std::uint64_t kind) {
    const std::uint64_t unit = shape_.geometry.cluster_size();
    const std::uint64_t part = std::min<std::uint64_t>(512, shape_.geometry.subcluster_size());
    Range range{draw(busy_), 1 + (chance(2) ? draw(3 * unit) : draw(unit / 2))};
    if (chance(2)) range = {align_down(range.offset, part), align_up(range.length, part)};
    if (chance(4)) range = {align_down(range.offset, unit), (1 + draw(3)) * unit};
    test::History::Change& mine = history_.begin(range);
    graph::ZeroFlags zeroes;
    zeroes.fua = chance(8);
    zeroes.may_unmap = chance(2);
    graph::WriteFlags flags;
    flags.fua = zeroes.fua;
    flags.compressed = chance(6);
    const ConstBuffers list(bytes_of(mine.data));
    Result<> done = ok;
    if (kind < 8) {
      done = co_await stack_->view().write(range.offset, list, flags);
    } else if (kind < 10) {
      mine.data.assign(range.length, '\0');
      done = co_await stack_->view().write_zeroes(range, zeroes);
    } else {
      mine.data.assign(range.length, '\0');
      mine.certain = false;
      done = co_await stack_->view().discard(range, flags);
    }
    if (!done || !mine.certain) co_return;
    history_.end(mine);
    mine.durable = flags.fua;
  }

  void check() {
    const test::Qcow2Audit audit = test::audit_qcow2(disk_.content("disk"));
    // an image that says that its counts may be wrong is repaired when it is opened
    if (!is_dirty()) ASSERT_TRUE(audit.errors.empty()) << audit.errors.front();
    disk_.chaos = {};
    disk_.fail_some(sim::Call::sync, 0, 0);
    disk_.fail_some(sim::Call::write, 0, 0);
    disk_.fail_some(sim::Call::read, 0, 0);
    sim::World world(1, disk_);
    expect_content(world, Qcow2Stack::Mode::read_only);
    if (testing::Test::HasFailure()) return;
    expect_content(world, Qcow2Stack::Mode::writable);
    const test::Qcow2Audit repaired = test::audit_qcow2(disk_.content("disk"));
    ASSERT_TRUE(repaired.errors.empty()) << repaired.errors.front();
  }

  bool is_dirty() const {
    const std::vector<std::byte> file = disk_.content("disk");
    return shape_.version >= 3 &&
           (file[79] & std::byte{formats::qcow2::incompatible::dirty}) != std::byte{0};
  }

  void expect_content(sim::World& world, Qcow2Stack::Mode mode) {
    Qcow2Stack again(world, "disk", mode);
    ASSERT_TRUE(again.opened()) << again.opened().error().message;
    for (const auto& [snapshot, content] : taken_) expect_snapshot(world, again, snapshot, content);
    const std::uint64_t length = std::min(shape_.size, busy_ + 5 * shape_.geometry.cluster_size());
    const Result<std::string> content = again.read({0, length});
    ASSERT_TRUE(content) << content.error().message;
    std::string first(length, '\0');
    if (variant_.backing) std::fill_n(first.begin(), std::min(length, disk_.size("base")), 'b');
    const std::string objection = history_.objection(0, *content, first);
    ASSERT_EQ(objection, "");
  }

  // A snapshot that was taken for sure is there, and shows what the disk was.
  static void expect_snapshot(sim::World& world, Qcow2Stack& stack, const std::string& name,
                              const std::string& content) {
    graph::ViewOptions options("export 'snapshot'");
    options.port = name;
    auto view = world.run(stack.graph().attach(stack.graph().find("disk"), std::move(options)));
    ASSERT_TRUE(view) << view.error().message;
    std::string found(content.size(), '?');
    const Buffers list(std::as_writable_bytes(std::span(found)));
    const Result<> done = world.run((*view)->read(0, list));
    ASSERT_TRUE(done) << done.error().message;
    ASSERT_TRUE(found == content) << "snapshot " << name << " is not what the disk was";
    (void)world.run(stack.graph().detach(*std::move(view)));
  }

  const Variant& variant_;
  test::Qcow2Shape shape_;
  std::uint64_t busy_ = 0;  // bytes where changes meet each other
  sim::Disk disk_;
  sim::World world_;
  std::unique_ptr<Qcow2Stack> stack_;
  test::History history_;
  std::map<std::string, std::string> taken_;
  int snapshots_ = 0;
  Gate gate_;
};

class Qcow2PowerCut : public testing::TestWithParam<Variant> {};
INSTANTIATE_TEST_SUITE_P(Images, Qcow2PowerCut, testing::ValuesIn(variants),
                         [](const auto& chosen) { return std::string(chosen.param.name); });

// Of each kind of image; `./dev soak powercut` wants more of them.
std::uint64_t cuts() {
  const char* given = std::getenv("GANTRY_CUTS");
  return given == nullptr ? 1000 : std::strtoull(given, nullptr, 0);
}

// What has found something once: 112, a deletion of a snapshot that could not set the flags anew
// said all the same that the image is in order; 1653, what a failed write had left behind the end
// of the file was seen only when the file was opened again.
constexpr std::array<std::uint64_t, 2> telling{112, 1653};

TEST_P(Qcow2PowerCut, LeavesNothingForeignWhereItOnceDid) {
  for (const std::uint64_t seed : telling) {
    SCOPED_TRACE(test::repeat_with(seed));
    Trial(seed, GetParam()).run();
  }
}

TEST_P(Qcow2PowerCut, LeavesLeaksAtWorstAndNothingForeign) {
  const std::uint64_t first = test::seed();
  for (std::uint64_t seed = first; seed < first + cuts() && !HasFailure(); ++seed) {
    SCOPED_TRACE(test::repeat_with(seed));
    Trial trial(seed, GetParam());
    trial.run();
  }
  RecordProperty("cuts", std::to_string(cuts()));
}

}  // namespace
