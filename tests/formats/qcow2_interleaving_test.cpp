// Two or three requests that meet in one cluster, in thousands of orders: each byte is what one of
// the allowed orders leaves, nobody reads what was never there, and the image is right.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/qcow2_chain.h"
#include "tests/support/seed.h"

namespace {

using test::Qcow2Stack;

// What each byte may be, from who wrote it when: a write that ended before another began is under
// it, whatever the order of those that met.
class Orders {
 public:
  static constexpr std::uint64_t under_way = std::numeric_limits<std::uint64_t>::max();
  struct Change {
    Range range;
    std::string data;
    bool keeps = false;  // a discard: or nothing changes
    std::uint64_t begun = 0;
    std::uint64_t ended = under_way;
  };
  explicit Orders(std::string first) : first_(std::move(first)) {}

  Change& begin(Range range, std::string data, bool keeps) {
    changes_.push_back({range, std::move(data), keeps, ++time_, under_way});
    return changes_.back();
  }
  void end(Change& change) { change.ended = ++time_; }
  std::uint64_t now() { return ++time_; }

  // A read from `begun` until now.
  bool may_be(std::uint64_t at, char found, std::uint64_t begun) const {
    std::uint64_t settled = 0;  // the last certain change that ended before the read began
    for (const Change& each : changes_) {
      if (covers(each, at) && each.ended < begun && !each.keeps) {
        settled = std::max(settled, each.begun);
      }
    }
    if (settled == 0 && found == first_[at]) return true;
    return std::ranges::any_of(changes_, [&](const Change& each) {
      return covers(each, at) && each.ended >= settled &&
             each.data[at - each.range.offset] == found;
    });
  }

 private:
  static bool covers(const Change& each, std::uint64_t at) {
    return each.range.offset <= at && at < each.range.end();
  }
  std::string first_;
  std::deque<Change> changes_;
  std::uint64_t time_ = 0;
};

class Race {
 public:
  struct Setup {
    unsigned cluster_bits = 9;
    bool extended = false;
    bool backing = false;
    test::DataFile data = test::DataFile::none;
    std::uint64_t clusters = 400;
    const char* refcount_cache = "2K";
    unsigned refcount_order = 4;
  };

  Race(std::uint64_t seed, const Setup& setup)
      : disk_(seed), world_(seed, disk_), orders_(first_content(setup)) {
    test::Qcow2Shape shape;
    shape.geometry.cluster_bits = setup.cluster_bits;
    shape.geometry.refcount_order = setup.refcount_order;
    shape.geometry.extended_l2 = setup.extended;
    shape.size = size_;
    if (setup.backing) {
      shape.backing = "base";
      disk_.make("base", std::vector<std::byte>(size_, std::byte{'b'}));
    }
    if (setup.data != test::DataFile::none) {
      shape.data_file = "data";
      disk_.make("data", 0);
    }
    disk_.make("disk", test::empty_qcow2(shape));
    // nothing is done inline: more orders
    disk_.traits.is_quick = disk_.traits.reads_now = false;
    Qcow2Stack::Keys keys{{"l2-cache-size", test::option_text("2K")},
                          {"refcount-cache-size", test::option_text(setup.refcount_cache)},
                          {"pass-discard-other", test::option_flag(world_.scheduler.one_in(2))}};
    stack_ = std::make_unique<Qcow2Stack>(world_, "disk", Qcow2Stack::Mode::writable,
                                          Qcow2Stack::Caching::buffered, keys);
    EXPECT_TRUE(stack_->opened());
    disk_.traits.whole_sectors = true;
    disk_.chaos = {0, 0, 1};
  }
  ~Race() { finish(); }

  sim::Scheduler& dice() { return world_.scheduler; }
  std::uint64_t unit() const { return unit_; }

  // Started beside what goes on already.
  void write(Range range, char byte, graph::WriteFlags flags = {}) {
    go([this, range, byte, flags] { return write_now(range, byte, flags); });
  }
  void zero(Range range, graph::ZeroFlags flags) {
    go([this, range, flags] { return zero_now(range, flags); });
  }
  void discard(Range range) {
    go([this, range] { return discard_now(range); });
  }
  void read(Range range) {
    go([this, range] { return read_now(range); });
  }
  void flush() {
    go([this] { return flush_now(); });
  }
  void settle() {
    world_.scheduler.run_until([&] { return gate_.inside() == 0; });
  }
  // Lets what goes on come some way further.
  void go_on() {
    std::uint64_t steps = dice().choose(200);
    world_.scheduler.run_until([&] { return gate_.inside() == 0 || steps-- == 0; });
  }

 private:
  std::string first_content(const Setup& setup) {
    unit_ = std::uint64_t{1} << setup.cluster_bits;
    size_ = setup.clusters * unit_;
    return std::string(size_, setup.backing ? 'b' : '\0');
  }
  // The coroutine is a named function's; the lambda that makes it has ended by then.
  void go(const std::function<asio::awaitable<void>()>& make) {
    spawn(world_.home.executor, gate_.enter_anyway(), make());
  }
  void expect(const Result<>& done) { EXPECT_TRUE(done) << done.error().message; }

  asio::awaitable<void> write_now(Range range, char byte, graph::WriteFlags flags) {
    Orders::Change& mine = orders_.begin(range, std::string(range.length, byte), false);
    const ConstBuffers list(bytes_of(mine.data));
    const Result<> done = co_await stack_->view().write(range.offset, list, flags);
    expect(done);
    orders_.end(mine);
  }
  asio::awaitable<void> zero_now(Range range, graph::ZeroFlags flags) {
    Orders::Change& mine = orders_.begin(range, std::string(range.length, '\0'), false);
    const Result<> done = co_await stack_->view().write_zeroes(range, flags);
    expect(done);
    orders_.end(mine);
  }
  asio::awaitable<void> discard_now(Range range) {
    Orders::Change& mine = orders_.begin(range, std::string(range.length, '\0'), true);
    const Result<> done = co_await stack_->view().discard(range);
    expect(done);
    orders_.end(mine);
  }
  asio::awaitable<void> read_now(Range range) {
    const std::uint64_t begun = orders_.now();
    std::string data(range.length, '?');
    Buffers list;
    list.add(std::as_writable_bytes(std::span(data)));
    const Result<> done = co_await stack_->view().read(range.offset, list);
    expect(done);
    check(range, data, begun);
  }
  asio::awaitable<void> flush_now() {
    const Result<> done = co_await stack_->view().flush();
    expect(done);
  }
  void check(Range range, const std::string& data, std::uint64_t begun) {
    for (std::uint64_t i = 0; i < range.length; ++i) {
      if (orders_.may_be(range.offset + i, data[i], begun)) continue;
      ADD_FAILURE() << "byte " << range.offset + i << " is " << int{data[i]};
      return;
    }
  }

  void finish() {
    settle();
    const std::uint64_t begun = orders_.now();
    const Result<std::string> content = stack_->read({0, size_});
    ASSERT_TRUE(content) << content.error().message;
    check({0, size_}, *content, begun);
    const Result<> closed = stack_->close();
    ASSERT_TRUE(closed) << closed.error().message;
    const test::Qcow2Audit audit = test::audit_qcow2(disk_.content("disk"));
    ASSERT_TRUE(audit.errors.empty()) << audit.errors.front();
    ASSERT_EQ(audit.leaked, 0U);
  }

  std::uint64_t unit_ = 0;
  std::uint64_t size_ = 0;
  sim::Disk disk_;
  sim::World world_;
  Orders orders_;
  std::unique_ptr<Qcow2Stack> stack_;
  Gate gate_;
};

void in_many_orders(int schedules, const Race::Setup& setup,
                    const std::function<void(Race&)>& story) {
  const std::uint64_t first = test::seed();
  for (std::uint64_t seed = first; seed < first + static_cast<std::uint64_t>(schedules); ++seed) {
    SCOPED_TRACE(test::repeat_with(seed));
    {
      Race race(seed, setup);
      story(race);
    }
    if (testing::Test::HasFailure()) return;
  }
}

graph::WriteFlags compressed() {
  graph::WriteFlags flags;
  flags.compressed = true;
  return flags;
}
graph::ZeroFlags zeroes(bool may_unmap) {
  graph::ZeroFlags flags;
  flags.may_unmap = may_unmap;
  return flags;
}

// block-graph.md calls it defect 2 of another server.
TEST(Qcow2Interleaving, AWriteUnderWayNeverLandsInAClusterThatWasDiscardedAndIsUsedAgain) {
  Race::Setup setup;
  setup.clusters = 200;
  in_many_orders(1500, setup, [](Race& race) {
    const std::uint64_t unit = race.unit();
    race.write({0, unit}, 'a');
    race.settle();
    race.write({0, unit}, 'b');
    race.discard({0, unit});
    race.flush();
    race.write({100 * unit, unit}, 'c');
    race.flush();
    race.write({101 * unit, unit}, 'd');
  });
}

TEST(Qcow2Interleaving, AReadUnderWayNeverSeesWhatItsClusterIsUsedForLater) {
  Race::Setup setup;
  setup.clusters = 200;
  in_many_orders(1500, setup, [](Race& race) {
    const std::uint64_t unit = race.unit();
    race.write({0, 2 * unit}, 'a');
    race.settle();
    race.read({0, 2 * unit});
    race.discard({0, 2 * unit});
    race.flush();
    race.write({50 * unit, 2 * unit}, 'c');
    race.read({0, 2 * unit});
    race.flush();
    race.write({60 * unit, 2 * unit}, 'd');
  });
}

TEST(Qcow2Interleaving, NeighboursInOneNewClusterBothSurvive) {
  Race::Setup setup;
  setup.backing = true;
  setup.cluster_bits = 12;
  setup.clusters = 20;
  in_many_orders(1500, setup, [](Race& race) {
    const std::uint64_t unit = race.unit();
    race.write({0, 512}, '1');
    race.write({512, 700}, '2');
    race.write({unit - 100, 200}, '3');
    race.read({0, 2 * unit});
    race.write({unit + 600, 100}, '4');
    if (race.dice().one_in(2)) race.flush();
  });
}

TEST(Qcow2Interleaving, TablesThatGoAndComeBackSayTheSame) {
  Race::Setup setup;
  setup.clusters = 64 * 12;
  in_many_orders(500, setup, [](Race& race) {
    const std::uint64_t unit = race.unit();
    for (int i = 0; i < 20; ++i) {
      const std::uint64_t at = race.dice().choose(12) * 64 * unit + race.dice().choose(2) * unit;
      if (race.dice().one_in(3)) {
        race.read({at, unit});
      } else {
        race.write({at, 1 + race.dice().choose(unit)}, static_cast<char>('a' + i));
      }
      if (race.dice().one_in(8)) race.flush();
    }
  });
}

TEST(Qcow2Interleaving, CompressedClustersAreReadWhileTheyAreFreed) {
  for (const unsigned order : {4U, 1U}) {
    Race::Setup setup;
    setup.cluster_bits = 12;
    setup.clusters = 40;
    setup.refcount_order = order;
    in_many_orders(700, setup, [](Race& race) {
      const std::uint64_t unit = race.unit();
      race.write({0, 3 * unit}, 'a', compressed());
      race.settle();
      race.read({0, 3 * unit});
      race.write({0, unit}, 'b', compressed());
      race.discard({unit, unit});
      race.flush();
      race.write({8 * unit, 4 * unit}, 'c', compressed());
      race.write({2 * unit + 7, 100}, 'd');
      race.flush();
      race.write({20 * unit, 2 * unit}, 'e');
      race.read({0, 12 * unit});
    });
  }
}

// Room behind the last compressed cluster, while that one goes and its count has to be read.
TEST(Qcow2Interleaving, CompressedDataIsPackedOnlyWhereItsClusterStays) {
  Race::Setup setup;
  setup.clusters = 640;
  setup.refcount_order = 6;
  in_many_orders(1500, setup, [](Race& race) {
    const std::uint64_t unit = race.unit();
    race.write({0, unit}, 'a', compressed());
    race.settle();
    race.flush();
    race.settle();
    race.write({2 * unit, 400 * unit}, 'x');  // counts in so many slices that the first ones go
    race.settle();
    race.flush();
    race.settle();
    race.discard({0, unit});
    race.settle();
    race.flush();
    race.go_on();
    race.write({500 * unit, unit}, 'b', compressed());
    race.write({501 * unit, unit}, 'c', compressed());
    race.settle();
    race.write({503 * unit, 2 * unit}, 'd', compressed());
  });
}

TEST(Qcow2Interleaving, ASubclusterIsWrittenInPlaceWhileItsNeighbourIsFilled) {
  for (const bool backing : {false, true}) {
    Race::Setup setup;
    setup.cluster_bits = 14;
    setup.extended = true;
    setup.backing = backing;
    setup.clusters = 4;
    in_many_orders(2000, setup, [](Race& race) {
      race.write({0, 512}, 'a');
      race.settle();
      race.write({100, 300}, 'b');   // in place
      race.write({500, 100}, 'c');   // its end, and the next one, which has no data yet
      race.write({1000, 100}, 'd');  // two that have none
      race.zero({1024, 1024}, zeroes(race.dice().one_in(2)));
      race.write({3 * 512 + 5, 5}, 'e');
      race.read({0, 4096});
    });
  }
}

TEST(Qcow2Interleaving, ZeroesAndWritesShareACluster) {
  for (const unsigned bits : {9U, 12U}) {
    for (const bool backing : {false, true}) {
      Race::Setup setup;
      setup.cluster_bits = bits;
      setup.backing = backing;
      setup.clusters = 16;
      in_many_orders(1500, setup, [](Race& race) {
        const std::uint64_t unit = race.unit();
        if (race.dice().one_in(2)) {
          race.write({0, 2 * unit}, 'a');
          race.settle();
        }
        race.zero({0, unit / 2}, zeroes(true));
        race.write({unit / 2, unit / 4}, 'b');
        race.zero({unit, unit}, zeroes(race.dice().one_in(2)));
        race.write({unit + 1, unit / 2}, 'c');
        race.zero({unit - 10, 20}, zeroes(false));
        race.read({0, 2 * unit});
        race.flush();
      });
    }
  }
}

TEST(Qcow2Interleaving, AFlushGoesOnBesideEverything) {
  Race::Setup setup;
  setup.clusters = 300;
  setup.backing = true;
  in_many_orders(1200, setup, [](Race& race) {
    const std::uint64_t unit = race.unit();
    for (int i = 0; i < 24; ++i) {
      const Range range{race.dice().choose(4) * 64 * unit + race.dice().choose(2 * unit),
                        1 + race.dice().choose(2 * unit)};
      const Range whole = range.widened(unit);
      switch (race.dice().choose(7)) {
        case 0:
          race.flush();
          break;
        case 1:
          race.discard(whole);
          break;
        case 2:
          race.zero(range, zeroes(race.dice().one_in(2)));
          break;
        case 3:
          race.write(whole, static_cast<char>('a' + i), compressed());
          break;
        case 4:
          race.read(range);
          break;
        default:
          race.write(range, static_cast<char>('a' + i));
      }
    }
  });
}

// A cluster of an external data file lies always in the same place: what gives its space back must
// not come after what is written there next.
TEST(Qcow2Interleaving, ADiscardInAnExternalDataFileSparesWhatIsWrittenLater) {
  Race::Setup setup;
  setup.data = test::DataFile::external;
  setup.clusters = 100;
  in_many_orders(2000, setup, [](Race& race) {
    const std::uint64_t unit = race.unit();
    race.write({0, 4 * unit}, 'a');
    race.settle();
    race.discard({0, 3 * unit});
    if (race.dice().one_in(2)) race.settle();
    race.write({unit, unit}, 'b');
    race.flush();
    race.write({2 * unit, unit / 2}, 'c');
    if (race.dice().one_in(2)) race.settle();
    race.flush();
    race.read({0, 4 * unit});
  });
}

}  // namespace
