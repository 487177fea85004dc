// Disks that fail, come short or hang beneath an export, as its clients and those of its neighbour
// on the same worker see it.
#include <fstream>
#include <iterator>
#include <tuple>

#include "graph/protocol/protocol.h"
#include "tests/support/doubt.h"
#include "tests/support/failing_engine.h"
#include "tests/support/graph_fixture.h"
#include "tests/support/nbd_fixture.h"
#include "tests/support/real_world.h"

namespace test {
namespace {

constexpr std::size_t size = 32 * KiB;
constexpr const graph::Driver* file_drivers[] = {&graph::file_driver};

HostOptions nothing_served() {
  HostOptions options;
  options.exports = {};
  return options;
}

// Where the files of the exports are: a disk in memory, or a folder of this machine behind an
// engine.
class Medium {
 public:
  Medium(const std::string& where, sim::Scheduler& scheduler) : scheduler_(scheduler) {
    if (where != "simulated") {
      real_ = std::make_unique<RealWorld>(engine_kind_of(where));
      folder_ = std::make_unique<TempDir>();
    }
  }
  std::string missing() const { return real_ ? real_->missing() : ""; }
  std::unique_ptr<FailingEngine> engine() {
    if (real_) return std::make_unique<FailingEngine>(real_->home.engine, real_->context);
    return std::make_unique<FailingEngine>(simulated_);
  }
  std::string path(const std::string& name) const { return folder_ ? folder_->path(name) : name; }
  void make(const std::string& name, const std::string& content) {
    if (folder_) {
      std::ofstream(path(name), std::ios::binary) << content;
    } else {
      const auto bytes = bytes_of(content);
      disk.make(name, std::vector<std::byte>(bytes.begin(), bytes.end()));
    }
  }
  std::string content(const std::string& name) const {
    if (folder_) {
      std::ifstream file(path(name), std::ios::binary);
      return {std::istreambuf_iterator<char>(file), {}};
    }
    const std::vector<std::byte> bytes = disk.content(name);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  sim::Disk disk{1};

 private:
  sim::Scheduler& scheduler_;
  sim::SimEngine simulated_{disk, scheduler_};
  std::unique_ptr<RealWorld> real_;
  std::unique_ptr<TempDir> folder_;
};

// One export of a file, through an engine of its own.
class FileExport {
 public:
  FileExport(NbdHost& host, Medium& medium, const std::string& name)
      : host_(host),
        engine_(medium.engine()),
        home_{host.world.home.executor, host.world.home.clock, *engine_, host.world.home.buffers,
              host.world.home.log, host.world.home.helpers},
        graph_(home_, file_drivers) {
    medium.make(name, std::string(size, 'i'));
    Options options;
    options.set("driver", OptionValue{std::string("file"), {}});
    options.set("filename", OptionValue{medium.path(name), {}});
    const auto node = host.world.run(graph_.add("file", options));
    EXPECT_OK(node);
    graph::ViewOptions wanted("export '" + name + "'");
    wanted.access.taken = graph::Permission::consistent_read | graph::Permission::write;
    auto view = host.world.run(graph_.attach(*node, std::move(wanted)));
    EXPECT_OK(view);
    auto item = nbd::Export::create(name, "", *std::move(view));
    EXPECT_OK(item);
    EXPECT_OK(host.server.add(*std::move(item)));
    host.take_effect();
  }
  FailingEngine& engine() { return *engine_; }
  // Errors: the last flush, or what closing says.
  Result<> close(std::unique_ptr<graph::BlockBackend> view) {
    Result<> flushed = host_.world.run(view->flush());
    const Result<> detached = host_.world.run(graph_.detach(std::move(view)));
    const Result<> closed = host_.world.run(graph_.close());
    if (!flushed) return flushed;
    return detached ? closed : detached;
  }

 private:
  NbdHost& host_;
  std::unique_ptr<FailingEngine> engine_;
  Home home_;
  graph::Graph graph_;
};

class TwoExports {
 public:
  explicit TwoExports(const std::string& where) : medium(where, host.world.scheduler) {
    if (!medium.missing().empty()) return;
    disk = std::make_unique<FileExport>(host, medium, "disk");
    other = std::make_unique<FileExport>(host, medium, "other");
  }
  // The clients leave, the server stops; how closing the first export ended.
  Result<> close() {
    for (const auto& client : host.clients) client->leaves();
    host.begin_stop();
    host.world.scheduler.run();
    Result<> first = ok;
    for (auto& item : host.server.release_exports()) {
      const bool mine = item->name() == "disk";
      Result<> closed = (mine ? disk : other)->close(item->release());
      if (mine) {
        first = std::move(closed);
      } else {
        EXPECT_OK(closed);
      }
    }
    EXPECT_EQ(host.world.buffers.lent(), 0U);
    EXPECT_EQ(disk->engine().open_files() + other->engine().open_files(), 0U);
    return first;
  }

  NbdHost host{nothing_served()};
  Medium medium;
  std::unique_ptr<FileExport> disk;
  std::unique_ptr<FileExport> other;
};

// All that a client may do, while a call beneath it goes wrong.
class Session {
 public:
  Session(TwoExports& exports, const Fault& fault)
      : exports_(exports),
        fault_(fault),
        client_(exports.host.attached("disk")),
        neighbour_(exports.host.attached("other")) {}

  void lead() {
    read(100, 9000);
    write(4096, 4096);
    write(5000, 3000);
    write(100, 700, flag::fua);
    zero(8192, 4096, flag::no_hole);
    zero(12'000, 3000, flag::fua);
    zero(16'384, 4096, flag::fast_zero);
    trim(20'480, 4096, 0);
    trim(24'576, 4096, flag::fua);
    flush();
    noted("cache", client_.does(cmd::cache, 0, size));
    noted("block status", client_.does(cmd::block_status, 0, size));
    write(30'000, 2000, flag::fua);
    flush();
    flush();
    read(0, size);
  }
  // Requires: everything is closed, `closed` says how.
  void check(const Result<>& closed) {
    EXPECT_EQ(doubt_.objection(0, exports_.medium.content("disk")), "");
    EXPECT_EQ(exports_.medium.content("other"), std::string(size, 'n'));
    if (fault_.is_harmless()) {
      EXPECT_OK(closed);
    }
    if (flush_failed_) {
      EXPECT_FALSE(closed);
    }
    const std::string& failed = exports_.disk->engine().failed();
    const bool absorbed =
        failed.ends_with("_now") || failed == "seek" || failed == "status" || failed == "will_need";
    if (!fault_.is_harmless() && !absorbed && !failed.empty()) {
      EXPECT_TRUE(failures_ > 0 || !closed);
    }
  }

 private:
  bool noted(const char* what, const Answer& answer) {
    SCOPED_TRACE(what);
    look_at_the_neighbour();
    if (answer.good()) return true;
    ++failures_;
    EXPECT_FALSE(fault_.is_harmless()) << answer.text;
    const bool sync = answer.text.contains("lost") || exports_.disk->engine().failed() == "sync";
    const bool full = fault_.error == ENOSPC && !sync && !flush_failed_;
    EXPECT_EQ(answer.error, full ? err::enospc : err::eio) << answer.text;
    return false;
  }
  void look_at_the_neighbour() {
    EXPECT_TRUE(neighbour_.writes(0, std::string(size, 'n')).good());
    EXPECT_EQ(neighbour_.reads(1, 3).data, "nnn");
  }
  void read(std::uint64_t offset, std::size_t length) {
    const Answer answer = client_.reads(offset, length);
    if (!noted("read", answer)) return;
    EXPECT_EQ(doubt_.objection(offset, answer.data), "");
    EXPECT_EQ(answer.data.size(), length);
  }
  void write(std::uint64_t offset, std::size_t length, std::uint16_t flags = 0) {
    const std::string data(length, static_cast<char>('A' + writes_++));
    const bool done = noted("write", client_.writes(offset, data, flags));
    doubt_.wrote(offset, data, done);
    note_durability(flags, done);
  }
  void zero(std::uint64_t offset, std::uint64_t length, std::uint16_t flags) {
    const bool done = noted("zero", client_.does(cmd::write_zeroes, offset, length, flags));
    doubt_.zeroed({offset, length}, done);
    note_durability(flags, done);
  }
  void trim(std::uint64_t offset, std::uint64_t length, std::uint16_t flags) {
    const bool done = noted("trim", client_.does(cmd::trim, offset, length, flags));
    doubt_.zeroed({offset, length}, false);
    note_durability(flags, done);
  }
  void flush() { note_durability(flag::fua, noted("flush", client_.does(cmd::flush, 0, 0))); }
  void note_durability(std::uint16_t flags, bool done) {
    if ((flags & flag::fua) == 0) return;
    EXPECT_FALSE(flush_failed_ && done) << "durable after a flush has failed";
    flush_failed_ = flush_failed_ || exports_.disk->engine().failed() == "sync";
    if (fault_.is_harmless()) flush_failed_ = false;
  }

  TwoExports& exports_;
  const Fault& fault_;
  WireClient& client_;
  WireClient& neighbour_;
  Doubt doubt_{std::string(size, 'i')};
  std::size_t failures_ = 0;
  int writes_ = 0;
  bool flush_failed_ = false;
};

class FailingDiskOnTheWire : public testing::TestWithParam<std::tuple<std::string, Fault>> {};
INSTANTIATE_TEST_SUITE_P(Disks, FailingDiskOnTheWire,
                         testing::Combine(testing::Values("simulated", "io_uring", "threads"),
                                          testing::ValuesIn(all_faults)),
                         [](const auto& chosen) {
                           return std::get<0>(chosen.param) + "_" + std::get<1>(chosen.param).name;
                         });

TEST_P(FailingDiskOnTheWire, AnswersWithTheRightErrorAndNobodyElseNotices) {
  const auto& [where, fault] = GetParam();
  for (const bool inline_calls : {true, false}) {
    bool came = true;
    std::size_t call = 0;
    while (came && !HasFailure()) {
      SCOPED_TRACE("call " + std::to_string(++call));
      TwoExports exports(where);
      if (!exports.medium.missing().empty()) GTEST_SKIP() << exports.medium.missing();
      if (!inline_calls) exports.disk->engine().do_nothing_now();
      exports.disk->engine().fail(call, fault);
      Session session(exports, fault);

      session.lead();
      const Result<> closed = exports.close();

      SCOPED_TRACE("which was " + exports.disk->engine().failed());
      session.check(closed);
      came = !exports.disk->engine().failed().empty();
    }
    EXPECT_GT(call, 15U);
  }
}

class HangingDisk : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Disks, HangingDisk, testing::Values("simulated", "io_uring", "threads"),
                         [](const auto& chosen) { return chosen.param; });

TEST_P(HangingDisk, DelaysNobodyElse) {
  TwoExports exports(GetParam());
  if (!exports.medium.missing().empty()) GTEST_SKIP() << exports.medium.missing();
  constexpr std::size_t stuck = 100;
  FailingEngine& engine = exports.disk->engine();
  WireClient& client = exports.host.attached("disk");
  WireClient& neighbour = exports.host.attached("other");
  engine.hang();

  std::vector<std::uint64_t> cookies;
  for (std::size_t i = 0; i < stuck; ++i) {
    const std::string data(4096, 'w');
    cookies.push_back(i % 2 == 0 ? client.sends({cmd::read, 0, 8192, 0, {}})
                                 : client.sends({cmd::write, 4096, data.size(), 0, data}));
  }
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(neighbour.writes(0, std::string(4096, 'n')).good()) << i;
    ASSERT_EQ(neighbour.reads(4095, 2).data, "ni") << i;
  }
  EXPECT_EQ(engine.hung(), stuck);

  engine.release();
  for (const std::uint64_t cookie : cookies) EXPECT_TRUE(client.answer(cookie).good());
  EXPECT_OK(exports.close());
}

TEST(CutDisk, FailsInsideTheExportWhereTheFileEnds) {
  TwoExports exports("simulated");
  WireClient& client = exports.host.attached("disk");
  exports.medium.disk.cut("disk", 20'000);

  const Answer across = client.reads(16'384, 8192);
  const Answer behind = client.reads(24'576, 512);
  const Answer before = client.reads(0, 20'000);

  EXPECT_EQ(across.error, err::eio);
  EXPECT_EQ(across.error_offset, 20'000U);
  EXPECT_EQ(behind.error, err::eio);
  EXPECT_EQ(before.data, std::string(20'000, 'i'));
  EXPECT_EQ(exports.host.attached("disk").reads(0, 512).data, std::string(512, 'i'));
  EXPECT_OK(exports.close());
}

}  // namespace
}  // namespace test
