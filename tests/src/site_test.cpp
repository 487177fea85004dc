#include "src/site.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/src/small_site.h"
#include "tests/support/wire_client.h"

namespace app {
namespace {

constexpr std::array witness_options{
    OptionSpec{"flush", Kind::choice, "works", "what becomes of a flush", "works|fails"},
    OptionSpec{"open", Kind::choice, "works", "what becomes of opening it", "works|fails"},
};

class Witness final : public Blank {
 public:
  explicit Witness(bool flush_works) : flush_works_(flush_works) {}
  Task<> flush_to_disk() override {
    home().log.info(name() + ": flush");
    if (flush_works_) return succeeded();
    return failed(fault(Errc::io_error, 0, "the medium is gone"));
  }
  Task<> close() override {
    home().log.info(name() + ": close");
    return succeeded();
  }

 private:
  const bool flush_works_;
};

Task<std::unique_ptr<graph::Node>> open_witness(graph::OpenContext& context) {
  context.home().log.info(context.node_name() + ": open");
  if (context.options().text("open") == "fails") {
    co_return context.blame("open", Error(Errc::io_error, context.node_name() + ": can't open it"));
  }
  co_return std::make_unique<Witness>(context.options().text("flush") == "works");
}

TEST(Site, FlushesWhatIsWritableBeforeItCloses) {
  SmallSite small("[nodes.w]\ndriver = 'witness'\n[exports.e]\nnode = 'w'\nwritable = true\n");
  ASSERT_EQ(small.open(), "");
  {
    // a byte that no client has flushed
    const std::array<std::byte, 1> byte{};
    const ConstBuffers data{std::span(byte)};
    ASSERT_TRUE(small.world.run(small.view("e").write(0, data)));
  }
  small.world.log.lines.clear();

  EXPECT_EQ(small.close(), "");

  ASSERT_GE(small.world.log.lines.size(), 2u);
  EXPECT_EQ(small.world.log.lines.front(), "w: flush");
  EXPECT_EQ(small.world.log.lines.back(), "w: close");
}

TEST(Site, SaysWhichExportLostItsLastFlush) {
  SmallSite small(
      "[nodes.w]\ndriver = 'witness'\nflush = 'fails'\n[nodes.v]\ndriver = 'witness'\n"
      "[exports.bad]\nnode = 'w'\nwritable = true\n[exports.good]\nnode = 'v'\nwritable = true\n");
  ASSERT_EQ(small.open(), "");
  const std::array<std::byte, 1> byte{};
  const ConstBuffers data{std::span(byte)};
  ASSERT_TRUE(small.world.run(small.view("bad").write(0, data)));

  const std::string said = small.close();

  EXPECT_EQ(said, "export 'bad': the last flush failed, data may be lost: w: the medium is gone");
  EXPECT_TRUE(small.was_logged(said));
  EXPECT_TRUE(small.was_logged("w: close"));
  EXPECT_TRUE(small.was_logged("v: close"));
}

TEST(Site, ClosesWhatItHasOpenedWhenTheRestFails) {
  SmallSite small("[nodes.a]\ndriver = 'witness'\n[nodes.b]\ndriver = 'witness'\nopen = 'fails'\n");

  const std::string said = small.open();

  EXPECT_EQ(said, "a.toml:5:1: b: can't open it");
  EXPECT_TRUE(small.was_logged("a: close"));
  EXPECT_TRUE(small.site.cells().front()->graph().nodes().empty());
}

TEST(Site, GivesARefusedExportItsPlaceInTheFile) {
  const std::string nodes = "[nodes.w]\ndriver = 'witness'\nread-only = true\n";
  SmallSite conflict(nodes + "[exports.e]\nnode = 'w'\nwritable = true\n");
  SmallSite window(nodes + "[exports.e]\nnode = 'w'\noffset = '1M'\nsize = 1\n");
  SmallSite offset(nodes + "[exports.e]\nnode = 'w'\noffset = '2M'\n");

  const std::string said = conflict.open();

  EXPECT_TRUE(said.starts_with("a.toml:4:1: ")) << said;
  EXPECT_EQ(window.open(),
            "a.toml:7:1: export 'e': 1 bytes at 1048576 leave node 'w' of 1048576 bytes");
  EXPECT_EQ(offset.open(),
            "a.toml:6:1: export 'e': 0 bytes at 2097152 leave node 'w' of 1048576 bytes");
}

// A site with a worker beside the front's own, which goes on only where a test says so.
class TwoWorkers {
 public:
  // Exports of as many disks; the first lives on the front, the next one on the other worker, and
  // so on by turns.
  explicit TwoWorkers(const std::vector<std::string>& names) : TwoWorkers(Toml{text_of(names)}) {}
  struct Toml {
    std::string text;
  };
  explicit TwoWorkers(const Toml& toml)
      : config(small_config(toml.text)),
        site(front.home, {&front.home, &other.home}, config, small_drivers) {
    finish(site.open());
  }
  ~TwoWorkers() { finish(site.close()); }
  TwoWorkers(const TwoWorkers&) = delete;
  TwoWorkers& operator=(const TwoWorkers&) = delete;

  // One that has had the reply to GO.
  test::WireClient& client_of(const std::string& name) {
    sim::StreamPair pair =
        sim::stream_pair(front.scheduler, {}, "#" + std::to_string(clients.size() + 1));
    clients.push_back(std::make_unique<test::WireClient>(front.scheduler, std::move(pair.client)));
    site.lobby().receive(std::move(pair.server));
    clients.back()->greets();
    EXPECT_TRUE(clients.back()->goes(name).acked());
    return *clients.back();
  }
  bool serves(test::WireClient& client) {
    const std::uint64_t cookie = client.sends({test::cmd::flush, 0, 0, 0, {}});
    both_go_on();
    return client.answer(cookie).good();
  }
  // On the front, as far as it goes alone.
  void begin(Task<> task, std::optional<Result<>>& result) {
    spawn(front.home.executor, Gate::Pass(), keep(std::move(task), result));
    front.scheduler.settle();
  }
  Result<> result_of(Task<> task) {
    std::optional<Result<>> result;
    begin(std::move(task), result);
    for (int i = 0; i < 100 && !result; ++i) {
      both_go_on();
      front.scheduler.pass(std::chrono::milliseconds(100));
      other.scheduler.pass(std::chrono::milliseconds(100));
    }
    return result.value_or(failure(Errc::timed_out, "it does not end"));
  }
  void finish(Task<> task) { EXPECT_EQ(message_of(std::move(task)), ""); }
  std::string message_of(Task<> task) {
    const Result<> result = result_of(std::move(task));
    return result ? "" : result.error().message;
  }
  void both_go_on() {
    for (int i = 0; i < 100; ++i) {
      front.scheduler.settle();
      other.scheduler.settle();
    }
  }

  const Config config;
  sim::World front{1};
  sim::World other{2};
  Site site;
  std::vector<std::unique_ptr<test::WireClient>> clients;

 private:
  static std::string text_of(const std::vector<std::string>& names) {
    std::string text;
    for (const std::string& name : names) {
      text += "[nodes." + name + "]\ndriver = 'memory'\n[exports." + name + "]\nnode = '" + name +
              "'\nwritable = true\n";
    }
    return text;
  }
  static asio::awaitable<void> keep(Task<> task, std::optional<Result<>>& out) {
    out.emplace(co_await std::move(task));
  }
};

TEST(Site, CutsOffWhoDoesNotReachItsWorkerInTime) {
  TwoWorkers two({"a", "b"});
  test::WireClient& lost = two.client_of("b");

  two.front.scheduler.pass(std::chrono::seconds(9));
  EXPECT_FALSE(lost.was_closed());
  two.front.scheduler.pass(std::chrono::seconds(2));
  EXPECT_TRUE(lost.was_closed());
  EXPECT_EQ(two.front.log.warnings,
            std::vector<std::string>{"client #1: did not reach export 'b' in time, worker 1 does "
                                     "not answer: cut off"});
  EXPECT_EQ(two.site.lobby().clients(), 0U);  // its place is free

  test::WireClient& next = two.client_of("b");
  EXPECT_TRUE(two.serves(next));
  EXPECT_EQ(two.site.lobby().clients(), 1U);
}

TEST(Site, SaysThatAGraphDoesNotLeaveItsWorker) {
  TwoWorkers two({"a", "b", "c", "d"});
  ASSERT_TRUE(two.serves(two.client_of("b")));  // so there is less to do on the other one
  test::WireClient& first = two.client_of("d");
  two.front.scheduler.pass(std::chrono::seconds(5));
  test::WireClient& second = two.client_of("d");

  two.front.scheduler.pass(std::chrono::seconds(6));
  EXPECT_TRUE(first.was_closed());
  EXPECT_FALSE(second.was_closed());
  EXPECT_EQ(two.front.log.warnings,
            std::vector<std::string>{"client #2: did not reach export 'd' in time, worker 1 does "
                                     "not let its graph go to worker 0: cut off"});
  EXPECT_TRUE(two.serves(second));
  EXPECT_EQ(&two.site.cells()[3]->home(), &two.front.home);
}

TEST(Site, ClosesWhatItCanWhileAGraphDoesNotLeaveItsWorker) {
  TwoWorkers two({"a", "b", "c", "d"});
  ASSERT_TRUE(two.serves(two.client_of("b")));
  two.client_of("d");

  std::optional<Result<>> closed;
  const auto close = [](Site& site, std::optional<Result<>>& out) -> asio::awaitable<void> {
    out.emplace(co_await site.close());
  };
  spawn(two.front.home.executor, Gate::Pass(), close(two.site, closed));
  two.front.scheduler.pass(std::chrono::seconds(1));

  EXPECT_EQ(two.site.unfinished(), (std::vector<std::string>{"b", "d"}));
  two.both_go_on();
  two.other.scheduler.pass(std::chrono::seconds(1));
  two.both_go_on();
  EXPECT_TRUE(closed);
}

// Two disks; the one that has snapshots lives on the other worker.
class Snapshots : public testing::Test {
 protected:
  void take(const std::string& name) {
    two.finish(two.site.visit(cell(), cell().take_snapshot("album", name)));
    two.finish(two.site.republish(cell()));
  }
  Cell& cell() { return *two.site.cells()[1]; }
  std::vector<std::string> offered() {
    std::vector<std::string> names;
    for (const auto& [name, offer] : *two.site.lobby().offers()) names.push_back(name);
    return names;
  }

  TwoWorkers two{
      TwoWorkers::Toml{"[nodes.a]\ndriver = 'memory'\n[exports.a]\nnode = 'a'\n"
                       "[nodes.album]\ndriver = 'album'\n"
                       "[exports.disk]\nnode = 'album'\nsnapshots = true\n"}};
};

TEST_F(Snapshots, AreOfferedOnceTheyAreTakenAndNoLongerThanTheyAreThere) {
  EXPECT_EQ(offered(), (std::vector<std::string>{"a", "disk"}));
  take("monday");
  EXPECT_EQ(offered(), (std::vector<std::string>{"a", "disk", "disk@monday"}));
  EXPECT_FALSE(two.site.lobby().offers()->at("disk@monday")->writable);
  EXPECT_EQ(two.site.snapshot_exports().at("disk@monday")->name, "disk");
  EXPECT_TRUE(two.serves(two.client_of("disk@monday")));

  graph::Port second;
  second.id = "2";
  take("tuesday");
  two.finish(two.site.visit(cell(), cell().delete_snapshot("album", second)));
  two.finish(two.site.republish(cell()));
  EXPECT_EQ(offered(), (std::vector<std::string>{"a", "disk", "disk@monday"}));
}

TEST_F(Snapshots, StayWhileAClientIsConnectedToTheirExport) {
  take("monday");
  test::WireClient& client = two.client_of("disk@monday");
  ASSERT_TRUE(two.serves(client));
  graph::Port first;
  first.id = "1";

  EXPECT_EQ(two.message_of(two.site.visit(cell(), cell().delete_snapshot("album", first))),
            "somebody looks at snapshot 'monday'");
  EXPECT_TRUE(two.serves(client));
}

TEST_F(Snapshots, AreGoneForWhoChoseThemAndCameTooLate) {
  take("monday");
  graph::Port first;
  first.id = "1";
  std::optional<Result<>> deleted;
  two.begin(two.site.visit(cell(), cell().delete_snapshot("album", first)), deleted);

  test::WireClient& late = two.client_of("disk@monday");  // its worker has not looked up yet
  two.both_go_on();

  EXPECT_TRUE(deleted && *deleted);
  EXPECT_TRUE(late.was_closed());
  EXPECT_EQ(two.site.lobby().clients(), 0U);
  EXPECT_THAT(two.other.log.lines, testing::Contains("client #1: export 'disk@monday' is gone"));
}

TEST(Site, ServesAWindowOfANode) {
  SmallSite small(
      "[nodes.w]\ndriver = 'witness'\n[exports.rest]\nnode = 'w'\noffset = '768K'\n"
      "[exports.part]\nnode = 'w'\nsize = '4K'\n");
  ASSERT_EQ(small.open(), "");

  EXPECT_EQ(small.view("rest").size(), 256 * KiB);
  EXPECT_EQ(small.view("part").size(), 4 * KiB);
  EXPECT_EQ(small.close(), "");
}

}  // namespace

extern const graph::Driver witness_driver{"witness", "tells what happens to it", witness_options,
                                          open_witness};

}  // namespace app
