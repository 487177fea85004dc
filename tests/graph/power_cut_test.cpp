// The power fails while requests are under way: what a flush or a durable write was answered for is
// there, and what is there instead of the rest was written once, at that very place.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include "tests/support/history.h"
#include "tests/support/image_stack.h"
#include "tests/support/seed.h"
#include "tests/support/world.h"

namespace {

using test::ShownView;

constexpr std::uint64_t start_size = 64 * KiB;
constexpr std::uint64_t busy_size = 6 * KiB;  // of each view: changes meet each other there

class Trial {
 public:
  Trial(std::uint64_t seed, test::Cached cached, std::uint32_t alignment)
      : disk_(seed), world_(seed, disk_) {
    disk_.traits.direct_alignment = alignment;
    disk_.traits.zeroes_ranges = chance(2);
    disk_.traits.is_quick = !chance(3);
    disk_.make("disk", std::vector<std::byte>(start_size, initial));
    stack_ = std::make_unique<test::ImageStack>(world_, cached);
    disk_.chaos = {4, 20, 2};
    if (chance(3)) disk_.fail_some(sim::Call::sync, 4, EIO);
    if (chance(3)) disk_.fail_some(sim::Call::write, 20, EIO);
  }

  void run() {
    disk_.power_off_after(static_cast<unsigned>(1 + draw(120)));
    for (int i = 0; i < 80; ++i) {
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
  static constexpr std::byte initial{'i'};
  std::uint64_t draw(std::uint64_t n) { return world_.scheduler.choose(n); }
  bool chance(std::uint64_t one_in) { return world_.scheduler.one_in(one_in); }

  asio::awaitable<void> operation() {
    ShownView& shown = stack_->views[draw(stack_->views.size())];
    const std::uint64_t kind = draw(10);
    if (kind == 0) {
      co_await flush(shown);
    } else if (shown.writes) {
      co_await change(shown, kind);
    }
  }

  asio::awaitable<void> flush(ShownView& shown) {
    const std::uint64_t begun = history_.begin_flush();
    const Result<> done = co_await shown.view->flush();
    if (done) history_.end_flush(begun);
  }

  asio::awaitable<void> change(ShownView& shown, std::uint64_t kind) {
    Range range{draw(busy_size), 1 + (chance(2) ? draw(3000) : draw(300))};
    const bool grows = shown.grows && chance(4) && kind < 8;
    if (grows) range.offset = start_size + draw(2000) - 1000;
    if (chance(2)) range = {align_down(range.offset, 512), align_up(range.length, 512)};
    if (chance(4)) range = {align_down(range.offset, 4096), 4096};
    test::History::Change& mine = history_.begin(range.shifted(shown.start));
    graph::ZeroFlags zeroes;
    zeroes.fua = chance(6);
    zeroes.may_unmap = chance(2);
    graph::WriteFlags flags;
    flags.fua = zeroes.fua;
    const ConstBuffers list(bytes_of(mine.data));
    Result<> done = ok;
    if (kind < 7) {
      done = co_await shown.view->write(range.offset, list, flags);
    } else if (kind < 9) {
      mine.data.assign(range.length, '\0');
      done = co_await shown.view->write_zeroes(range, zeroes);
    } else {
      mine.data.assign(range.length, '\0');
      mine.certain = false;
      done = co_await shown.view->discard(range, flags);
    }
    if (!done || !mine.certain) co_return;
    history_.end(mine);
    mine.durable = flags.fua || shown.name == "write-through";
  }

  void check() {
    const std::vector<std::byte> content = disk_.content("disk");
    std::uint64_t least = start_size;
    std::uint64_t end = start_size;
    for (const test::History::Change& each : history_.changes()) {
      if (each.durable && each.certain) least = std::max(least, each.range.end());
      end = std::max(end, each.range.end());
    }
    ASSERT_GE(content.size(), least) << "the file lost its end";
    std::string first(content.size(), '\0');
    std::fill_n(first.begin(), std::min(first.size(), start_size), static_cast<char>(initial));
    const std::string_view found(reinterpret_cast<const char*>(content.data()), content.size());
    const std::string objection = history_.objection(0, found, first);
    ASSERT_EQ(objection, "");
  }
  sim::Disk disk_;
  sim::World world_;
  std::unique_ptr<test::ImageStack> stack_;
  test::History history_;
  Gate gate_;
};

struct Variant {
  const char* name;
  test::Cached cached;
  std::uint32_t alignment;
};
constexpr Variant variants[] = {{"cached", test::Cached::yes, 1},
                                {"direct_512", test::Cached::no, 512},
                                {"direct_4096", test::Cached::no, 4096}};

class PowerCut : public testing::TestWithParam<Variant> {};
INSTANTIATE_TEST_SUITE_P(Disks, PowerCut, testing::ValuesIn(variants),
                         [](const auto& chosen) { return std::string(chosen.param.name); });

TEST_P(PowerCut, LosesNothingThatWasFlushedAndMakesNothingUp) {
  const std::uint64_t first = test::seed();
  for (std::uint64_t seed = first; seed < first + 300 && !HasFailure(); ++seed) {
    SCOPED_TRACE(test::repeat_with(seed));
    Trial trial(seed, GetParam().cached, GetParam().alignment);
    trial.run();
  }
}

}  // namespace
