// Each call below an image fails once, in the middle of each kind of operation: the error says
// where and reaches who asked, nothing is wrong with the image, and the next try makes up for it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include "tests/support/graph_fixture.h"
#include "tests/support/qcow2_chain.h"

namespace {

using sim::Call;
using test::Qcow2Stack;

enum class Op : std::uint8_t { read, write, compressed, fua, zero, unmap, discard };
struct Step {
  Op op;
  Range range;
  char byte = '\0';
};

struct Scenario {
  const char* name;
  unsigned cluster_bits;
  unsigned refcount_order;
  bool extended;
  bool backing;
  bool external;
  std::vector<Step> before;
  Step step;
  // In one piece: if it fails nothing has changed.
  bool whole = true;
};

constexpr std::uint64_t K = 1024;
const std::vector<Scenario>& scenarios() {
  static const std::vector<Scenario> all = {
      {"read_data",
       12,
       4,
       false,
       false,
       false,
       {{Op::write, {0, 8 * K}, 'a'}},
       {Op::read, {100, 5 * K}}},
      {"read_compressed",
       12,
       4,
       false,
       false,
       false,
       {{Op::compressed, {0, 8 * K}, 'a'}},
       {Op::read, {100, 5 * K}}},
      {"read_backing",
       12,
       4,
       false,
       true,
       false,
       {{Op::write, {0, 4 * K}, 'a'}},
       {Op::read, {100, 5 * K}}},
      {"write_new", 12, 4, false, false, false, {}, {Op::write, {100, 300}, 'x'}},
      {"write_new_cluster",
       12,
       4,
       false,
       true,
       false,
       {{Op::write, {8 * K, 4 * K}, 'a'}},
       {Op::write, {0, 4 * K}, 'x'}},
      {"write_copying", 12, 4, false, true, false, {}, {Op::write, {100, 300}, 'x'}},
      {"write_copying_beside_tables",
       12,
       4,
       false,
       true,
       false,
       {{Op::write, {40 * K, 1}, 'a'}},
       {Op::write, {4 * K + 100, 5 * K}, 'x'},
       false},
      {"write_in_place",
       12,
       4,
       false,
       false,
       false,
       {{Op::write, {0, 8 * K}, 'a'}},
       {Op::write, {100, 5 * K}, 'x'}},
      {"write_on_compressed",
       12,
       4,
       false,
       false,
       false,
       {{Op::compressed, {0, 8 * K}, 'a'}},
       {Op::write, {100, 300}, 'x'}},
      {"write_on_zeroes",
       12,
       4,
       false,
       true,
       false,
       {{Op::write, {0, 4 * K}, 'a'}, {Op::zero, {0, 4 * K}}},
       {Op::write, {100, 300}, 'x'}},
      {"write_durably",
       12,
       4,
       false,
       true,
       false,
       {{Op::write, {0, 4 * K}, 'a'}},
       {Op::fua, {100, 300}, 'x'}},
      {"write_durably_new", 12, 4, false, true, false, {}, {Op::fua, {100, 300}, 'x'}},
      {"write_much", 9, 6, false, false, false, {}, {Op::write, {100, 100 * K}, 'x'}, false},
      {"write_reused_space",
       9,
       4,
       false,
       false,
       false,
       {{Op::write, {0, 64 * K}, 'a'}, {Op::discard, {0, 32 * K}}},
       {Op::write, {100 * K, 20 * K}, 'x'},
       false},
      {"write_subcluster",
       14,
       4,
       true,
       true,
       false,
       {{Op::write, {0, 512}, 'a'}},
       {Op::write, {700, 5000}, 'x'}},
      {"compress",
       12,
       4,
       false,
       false,
       false,
       {{Op::compressed, {0, 4 * K}, 'a'}},
       {Op::compressed, {4 * K, 12 * K}, 'x'},
       false},
      {"compress_over",
       12,
       1,
       false,
       true,
       false,
       {{Op::compressed, {0, 16 * K}, 'a'}},
       {Op::compressed, {4 * K, 4 * K}, 'x'}},
      {"zero_clusters",
       12,
       4,
       false,
       true,
       false,
       {{Op::write, {0, 16 * K}, 'a'}},
       {Op::zero, {4 * K, 8 * K}}},
      {"zero_and_unmap",
       12,
       4,
       false,
       true,
       false,
       {{Op::write, {0, 16 * K}, 'a'}},
       {Op::unmap, {4 * K, 8 * K}}},
      {"zero_part",
       12,
       4,
       false,
       true,
       false,
       {{Op::write, {0, 4 * K}, 'a'}},
       {Op::zero, {1000, 2000}}},
      {"zero_part_of_backing", 12, 4, false, true, false, {}, {Op::zero, {1000, 6000}}, false},
      {"zero_part_of_compressed",
       12,
       4,
       false,
       false,
       false,
       {{Op::compressed, {0, 8 * K}, 'a'}},
       {Op::zero, {1000, 2000}}},
      {"zero_subclusters",
       14,
       4,
       true,
       true,
       false,
       {{Op::write, {0, 8 * K}, 'a'}},
       {Op::zero, {1024, 2048}}},
      {"zero_subclusters_of_compressed",
       14,
       4,
       true,
       false,
       false,
       {{Op::compressed, {0, 16 * K}, 'a'}},
       {Op::zero, {1024, 2048}}},
      {"discard",
       12,
       4,
       false,
       false,
       false,
       {{Op::write, {0, 16 * K}, 'a'}},
       {Op::discard, {4 * K, 8 * K}}},
      {"discard_compressed",
       12,
       4,
       false,
       true,
       false,
       {{Op::compressed, {0, 16 * K}, 'a'}},
       {Op::discard, {4 * K, 8 * K}}},
      {"external_write",
       12,
       4,
       false,
       true,
       true,
       {{Op::write, {0, 4 * K}, 'a'}},
       {Op::write, {100, 7 * K}, 'x'},
       false},
      {"external_discard",
       12,
       4,
       false,
       false,
       true,
       {{Op::write, {0, 16 * K}, 'a'}},
       {Op::discard, {4 * K, 8 * K}}},
  };
  return all;
}

class Attempt {
 public:
  Attempt(const Scenario& scenario, Call call, unsigned nth)
      : scenario_(scenario),
        call_(call),
        disk_(1),
        world_(1, disk_),
        old_(size, scenario.backing ? 'b' : '\0') {
    test::Qcow2Shape shape;
    shape.geometry.cluster_bits = scenario.cluster_bits;
    shape.geometry.refcount_order = scenario.refcount_order;
    shape.geometry.extended_l2 = scenario.extended;
    shape.size = size;
    if (scenario.backing) {
      shape.backing = "base";
      disk_.make("base", std::vector<std::byte>(size, std::byte{'b'}));
    }
    if (scenario.external) {
      shape.data_file = "data";
      disk_.make("data", 0);
    }
    disk_.make("disk", test::empty_qcow2(shape));
    disk_.traits.is_quick = disk_.traits.reads_now = false;  // so that all of them count
    open();
    for (const Step& step : scenario.before) {
      EXPECT_OK(act(step));
      apply(step, old_);
    }
    EXPECT_OK(stack_->close());
    stack_.reset();
    open();
    new_ = old_;
    apply(scenario.step, new_);
    disk_.fail(call, nth, EIO);
    last_ = disk_.calls(call) + nth;
  }

  // False when the operation and all that follows make fewer calls.
  bool run() {
    const Result<> done = act(scenario_.step);
    const bool hit_in_operation = hit();
    if (done) {
      expect_content(new_, new_);
    } else {
      expect_error(done.error());
      const bool unchanged = scenario_.whole && call_ == Call::read;
      expect_content(old_, unchanged ? old_ : new_);
    }
    if (testing::Test::HasFailure()) return false;
    const Result<> flushed = stack_->flush();
    if (!flushed) {
      EXPECT_EQ(flushed.error().code, Errc::io_error) << flushed.error().message;
    }
    world_.scheduler.run();
    if (call_ == Call::sync && hit()) {  // the file's node has failed, for good
      (void)stack_->close();
      expect_sound();
      return true;
    }
    if (!done) {
      EXPECT_OK(act(scenario_.step));
    }
    const Result<> again = stack_->flush();
    world_.scheduler.run();
    if (call_ == Call::sync && hit()) {
      (void)stack_->close();
      expect_sound();
      return true;
    }
    if (!again) EXPECT_TRUE(done && flushed) << again.error().message;
    expect_content(new_, new_);
    const bool hit_before = hit();
    const Result<> closed = stack_->close();
    if (hit_before) {
      EXPECT_OK(closed);
    }
    const std::uint64_t leaked = expect_sound();
    const bool reported = !done || !flushed;
    // what nobody was told of is only space
    if (reported || !hit_in_operation) {
      if (closed && (reported || !hit())) {
        EXPECT_EQ(leaked, 0U);
      }
    }
    stack_.reset();
    if (closed && (call_ != Call::read || hit())) {
      open();
      expect_content(new_, new_);
    }
    return hit();
  }

 private:
  static constexpr std::uint64_t size = 256 * K;

  bool hit() const { return disk_.calls(call_) >= last_; }
  void open() {
    stack_ = std::make_unique<Qcow2Stack>(
        world_, "disk", Qcow2Stack::Mode::writable, Qcow2Stack::Caching::buffered,
        Qcow2Stack::Keys{{"refcount-cache-size", test::option_text("2K")}});
    ASSERT_TRUE(stack_->opened()) << stack_->opened().error().message;
  }
  Result<> act(const Step& step) {
    const std::string data(step.range.length, step.byte);
    graph::WriteFlags flags;
    flags.compressed = step.op == Op::compressed;
    flags.fua = step.op == Op::fua;
    graph::ZeroFlags zeroes;
    zeroes.may_unmap = step.op == Op::unmap;
    switch (step.op) {
      case Op::read: {
        const Result<std::string> found = stack_->read(step.range);
        if (!found) return std::unexpected(found.error());
        EXPECT_EQ(*found, old_.substr(step.range.offset, step.range.length));
        return ok;
      }
      case Op::write:
      case Op::compressed:
      case Op::fua:
        return stack_->write(step.range.offset, data, flags);
      case Op::zero:
      case Op::unmap:
        return stack_->zero(step.range, zeroes);
      case Op::discard:
        break;
    }
    return stack_->discard(step.range);
  }
  static void apply(const Step& step, std::string& content) {
    if (step.op == Op::read) return;
    content.replace(step.range.offset, step.range.length,
                    std::string(step.range.length, step.byte));
  }
  void expect_error(const Error& error) {
    EXPECT_EQ(error.code, Errc::io_error) << error.message;
    const Range range = scenario_.step.range;
    EXPECT_TRUE(error.offset >= range.offset && error.offset < range.end())
        << error.offset << ": " << error.message;
  }
  // Each byte is that of one of the two.
  void expect_content(const std::string& one, const std::string& other) {
    Result<std::string> found = stack_->read({0, size});
    if (!found && call_ == Call::read) found = stack_->read({0, size});  // this one was to fail
    ASSERT_TRUE(found) << found.error().message;
    for (std::uint64_t i = 0; i < size; ++i) {
      const char byte = (*found)[i];
      ASSERT_TRUE(byte == one[i] || byte == other[i]) << "byte " << i << " is " << int{byte};
    }
  }
  std::uint64_t expect_sound() {
    const test::Qcow2Audit audit = test::audit_qcow2(disk_.content("disk"));
    EXPECT_TRUE(audit.errors.empty()) << audit.errors.front();
    return audit.leaked;
  }

  const Scenario& scenario_;
  Call call_;
  sim::Disk disk_;
  sim::World world_;
  std::string old_;
  std::string new_;
  unsigned last_ = 0;
  std::unique_ptr<Qcow2Stack> stack_;
};

class Qcow2FailingChild : public testing::TestWithParam<std::size_t> {};
INSTANTIATE_TEST_SUITE_P(Operations, Qcow2FailingChild,
                         testing::Range<std::size_t>(0, scenarios().size()),
                         [](const auto& chosen) {
                           return std::string(scenarios()[chosen.param].name);
                         });

TEST_P(Qcow2FailingChild, EveryCallThatFailsIsReportedAndMadeUpFor) {
  const Scenario& scenario = scenarios()[GetParam()];
  constexpr std::pair<Call, const char*> calls[] = {{Call::read, "read"},
                                                    {Call::write, "write"},
                                                    {Call::sync, "sync"},
                                                    {Call::fallocate, "fallocate"},
                                                    {Call::truncate, "truncate"}};
  for (const auto& [call, name] : calls) {
    for (unsigned nth = 1; nth < 1000; ++nth) {
      SCOPED_TRACE(std::string(name) + " " + std::to_string(nth));
      Attempt attempt(scenario, call, nth);
      if (!attempt.run()) break;
      if (HasFailure()) return;
    }
    if (HasFailure()) return;
  }
}

}  // namespace
