// Every call that the file node makes goes wrong in turn, in every way, in the middle of all it
// does in its life: on a simulated disk, and with each engine on a real one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <tuple>

#include "tests/support/doubt.h"
#include "tests/support/failing_engine.h"
#include "tests/support/file_graph.h"

namespace {

using graph::Permission;
using test::Doubt;
using test::FailingEngine;
using test::Fault;
using test::FileGraph;
using test::Place;
using test::RealPlace;
using test::SimPlace;
using test::yes;

// Another place through an engine that fails.
class FailingPlace final : public Place {
 public:
  explicit FailingPlace(Place& base)
      : engine(base.home().engine),
        base_(base),
        home_{base.home().executor, base.home().clock, engine, base.home().buffers,
              base.home().log, base.home().helpers} {}
  Home& home() override { return home_; }
  Result<> run(Task<> task) override { return base_.run(std::move(task)); }
  std::string path(const std::string& name) const override { return base_.path(name); }
  void make(const std::string& name, const std::string& content) override {
    base_.make(name, content);
  }
  std::string content(const std::string& name) override { return base_.content(name); }
  std::uint64_t allocated(const std::string& name) override { return base_.allocated(name); }
  sim::MemoryLog& log() override { return base_.log(); }

  FailingEngine engine;

 private:
  Place& base_;
  Home home_;
};

constexpr std::size_t start_size = 20'000;

// A file's whole life, written down: what failed, and what it may hold now.
class Life {
 public:
  Life(Place& base, const Fault& fault) : base_(base), fault_(fault), place_(base), file_(place_) {
    base_.make("disk", std::string(start_size, 'i'));
  }
  FailingEngine& engine() { return place_.engine; }

  void lead() {
    if (step("open", file_.open("disk", {{"auto-read-only", yes()}}))) {
      if (step("attach", file_.attach(Permission::consistent_read))) {
        read(0, 5000);
        step("detach", file_.detach());
      }
      if (step("attach", file_.attach())) use();
    }
    if (file_.view) step("detach", file_.detach());
    step("close", file_.close());
  }

  // Nothing of it is left, and its neighbour has seen nothing.
  void check() {
    const std::string& failed = engine().failed();
    if (fault_.is_harmless()) {
      EXPECT_EQ(failures_, 0U);
    } else if (absorbs_nothing(failed)) {
      EXPECT_GT(failures_, 0U);
    }
    EXPECT_EQ(doubt_.objection(0, place_.content("disk")), "");
    EXPECT_EQ(engine().open_files(), 0U);
    EXPECT_EQ(place_.home().buffers.lent(), 0U);
  }

 private:
  void use() {
    read(100, 9000);
    write("write of a page", 4096, 4096);
    write("write", 5000, 3000);
    write("durable write", 100, 700, true);
    zero({8192, 4096}, false);
    zero({12'000, 3000}, true);
    const Range discarded{16'384, 2048};
    const bool gone = step("discard", file_.discard(discarded));
    doubt_.zeroed(discarded, gone);
    flush();
    write("write past the end", start_size - 10, 500);
    resize(30'000);
    step("map", place_.run(map()));
    step("prefetch", file_.prefetch({0, start_size}));
    write("durable write past the end", 30'000, 10, true);
    flush();
    flush();
    read(0, file_.view->size());
  }

  // Notes how it ended.
  bool step(const char* name, const Result<>& done) {
    if (done) return true;
    ++failures_;
    const Error& error = done.error();
    SCOPED_TRACE(std::string(name) + ": " + error.message);
    EXPECT_FALSE(fault_.is_harmless());
    const bool lost = error.message.contains("an earlier write to the medium failed");
    const bool sync = error.message.contains("fdatasync");
    EXPECT_EQ(error.code,
              fault_.error == ENOSPC && !lost && !sync ? Errc::no_space : Errc::io_error);
    if (sync || lost) flush_failed_ = true;
    return false;
  }
  void flush() {
    const bool had_failed = flush_failed_;
    const bool done = step("flush", file_.flush());
    EXPECT_FALSE(had_failed && done) << "a flush succeeds after one has failed";
  }
  void read(std::uint64_t offset, std::size_t length) {
    const auto got = file_.read(offset, length);
    if (got) {
      EXPECT_EQ(doubt_.objection(offset, *got), "");
      return;
    }
    step("read", std::unexpected(got.error()));
    EXPECT_GE(got.error().offset, offset);
    EXPECT_LT(got.error().offset, offset + length);
  }
  void write(const char* name, std::uint64_t offset, std::size_t length, bool fua = false) {
    const std::string data(length, static_cast<char>('A' + writes_++));
    graph::WriteFlags flags;
    flags.fua = fua;
    const Result<> done = file_.write(offset, data, flags);
    const bool had_failed = flush_failed_;
    doubt_.wrote(offset, data, step(name, done));
    if (done) {
      EXPECT_FALSE(fua && had_failed) << "a durable write succeeds after a flush has failed";
      return;
    }
    EXPECT_GE(done.error().offset, done.error().message.contains("earlier") ? 0 : offset);
    EXPECT_LT(done.error().offset, offset + length);
  }
  void zero(Range range, bool may_unmap) {
    doubt_.zeroed(range, step("zero", file_.zero(range, may_unmap)));
  }
  void resize(std::uint64_t size) {
    const std::uint64_t old = file_.view->size();
    if (step("resize", file_.resize(size)) && size > old) doubt_.zeroed({old, size - old}, true);
  }
  // What it calls zero reads as zeroes.
  Task<> map() {
    std::uint64_t at = 0;
    const std::uint64_t size = file_.view->size();
    while (at < size) {
      const Range rest{at, size - at};
      CO_TRY(const graph::StatusExtents found,
             co_await file_.view->block_status(rest, graph::MapDepth::zeroes, 100));
      for (const auto& extent : found) {
        if (extent.zero) {
          EXPECT_EQ(doubt_.objection(at, std::string(extent.length, '\0')), "");
        }
        at += extent.length;
      }
    }
    co_return ok;
  }
  // Whose failure somebody has to hear of: no advice, no second way to the same end.
  static bool absorbs_nothing(const std::string& call) {
    return call == "open" || call == "read" || call == "write" || call == "sync" ||
           call == "fallocate" || call == "truncate" || call == "close";
  }

  Place& base_;
  const Fault& fault_;
  FailingPlace place_;
  FileGraph file_;
  Doubt doubt_{std::string(start_size, 'i')};
  std::size_t failures_ = 0;
  int writes_ = 0;
  bool flush_failed_ = false;
};

enum class Inline : std::uint8_t { yes, no };
using Case = std::tuple<std::string, Fault, Inline>;

class FailingDisk : public testing::TestWithParam<Case> {
 protected:
  static std::unique_ptr<Place> make_place() {
    const std::string& where = std::get<0>(GetParam());
    if (where == "simulated") return std::make_unique<SimPlace>();
    return std::make_unique<RealPlace>(engine_kind_of(where));
  }
};
INSTANTIATE_TEST_SUITE_P(Disks, FailingDisk,
                         testing::Combine(testing::Values("simulated", "io_uring", "threads"),
                                          testing::ValuesIn(test::all_faults),
                                          testing::Values(Inline::yes, Inline::no)),
                         [](const auto& chosen) {
                           return std::get<0>(chosen.param) + "_" + std::get<1>(chosen.param).name +
                                  (std::get<2>(chosen.param) == Inline::yes ? ""
                                                                            : "_nothing_inline");
                         });

TEST_P(FailingDisk, EndsInTheRightErrorOrNoneAndDestroysNothing) {
  const auto place = make_place();
  if (!place->missing().empty()) GTEST_SKIP() << place->missing();
  const Fault& fault = std::get<1>(GetParam());
  place->make("neighbour", std::string(5000, 'n'));
  FileGraph neighbour(*place);
  ASSERT_OK(neighbour.open("neighbour"));
  ASSERT_OK(neighbour.attach());

  bool came = true;
  std::size_t call = 0;
  while (came && !HasFailure()) {
    ++call;
    SCOPED_TRACE("call " + std::to_string(call));
    Life life(*place, fault);
    if (std::get<2>(GetParam()) == Inline::no) life.engine().do_nothing_now();
    life.engine().fail(call, fault);
    life.lead();
    SCOPED_TRACE("which was " + life.engine().failed());
    life.check();
    EXPECT_OK(neighbour.write(call, "x"));
    EXPECT_EQ(neighbour.read(call - 1, 3).value_or(""), call > 1 ? "xxn" : "nxn");
    came = !life.engine().failed().empty();
  }
  EXPECT_GT(call, 35U);  // so many calls there are, and all had their turn
}

}  // namespace
