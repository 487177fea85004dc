// robustness_test.cpp - a client that sends rubbish, stops in the middle of a message at any byte,
// or never reads its replies harms only itself: every message, every byte position. Statement 9,
// and rules D-2 and D-3 at the wire.
#include <algorithm>

#include "tests/support/nbd_fixture.h"

namespace test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// How a client goes away.
enum class Going { leaves, ends, loses };
constexpr Going all_goings[] = {Going::leaves, Going::ends, Going::loses};

void go(WireClient& client, Going how) {
  if (how == Going::leaves) client.leaves();
  if (how == Going::ends) client.ends();
  if (how == Going::loses) client.loses();
}

// Each option message, after a greeting.
std::vector<std::string> options() {
  return {option(opt::export_name, "disk"),
          option(opt::abort, "bye"),
          option(opt::list),
          option(opt::list, "x"),
          option(opt::starttls),
          option(opt::info, info_data("disk", {inf::name, inf::description, inf::block_size})),
          option(opt::go, info_data("disk", {inf::block_size})),
          option(opt::go, info_data("nobody")),
          option(opt::structured_reply),
          option(opt::list_meta, meta_data("disk", {"base:", "x:y"})),
          option(opt::set_meta, meta_data("disk", {"base:allocation"})),
          option(opt::extended_headers),
          option(99, "some data")};
}

// Each request message.
std::vector<std::string> requests() {
  std::vector<std::string> all;
  for (std::uint16_t command = 0; command <= 8; ++command) {
    Request request{.command = command, .offset = 4096, .length = 70, .cookie = 9};
    if (command == cmd::write) request.payload = pattern(70);
    all.push_back(request.bytes());
  }
  all.push_back(Request{
      .command = cmd::write, .offset = 0, .length = 70, .flags = 0xff, .payload = pattern(70)}
                    .bytes());
  all.push_back(Request{.offset = 0, .length = 300'000, .cookie = 3}.bytes());
  return all;
}

// One host, on which a polite client is attached; others come and go badly.
class Neighbourhood {
 public:
  explicit Neighbourhood(std::uint64_t seed = 1, Segments segments = Segments::whole)
      : host_(make(seed, segments)), polite_(host_.attached("")) {}

  NbdHost& host() { return host_; }
  WireClient& stranger() { return host_.client(); }
  // Everybody but the polite client is gone and nothing is left of them; the polite one is served.
  testing::AssertionResult is_undisturbed() {
    host_.world.scheduler.settle();
    if (host_.connections() != 1) {
      return testing::AssertionFailure() << host_.connections() << " connections are left";
    }
    if (host_.world.buffers.lent() != 0) {
      return testing::AssertionFailure() << host_.world.buffers.lent() << " bytes are lent";
    }
    const std::string data = pattern(100, ++round_);
    if (!polite_.writes(round_, data).good() || polite_.reads(round_, 100).data != data) {
      return testing::AssertionFailure() << "the polite client is not served";
    }
    while (host_.clients.size() > 1) host_.clients.pop_back();
    return testing::AssertionSuccess();
  }

 private:
  static HostOptions make(std::uint64_t seed, Segments segments) {
    HostOptions options(segments);
    options.seed = seed;
    return options;
  }
  NbdHost host_;
  WireClient& polite_;
  unsigned round_ = 0;
};

TEST(Protocol, S9_WhoGoesAwayInsideOfTheHandshakeLeavesNothing) {
  for (const Segments segments : {Segments::whole, Segments::single}) {
    Neighbourhood street(1, segments);
    for (const Going how : all_goings) {
      for (const std::string& message : options()) {
        const std::string said = be32(3) + message;
        for (std::size_t cut = 0; cut < said.size(); ++cut) {
          WireClient& client = street.stranger();
          client.says(said.substr(0, cut));
          go(client, how);
          ASSERT_TRUE(street.is_undisturbed()) << cut;
        }
      }
    }
  }
}

TEST(Protocol, S9_WhoGoesAwayInsideOfARequestLeavesNothing) {
  for (const Segments segments : {Segments::whole, Segments::single}) {
    Neighbourhood street(1, segments);
    for (const Going how : all_goings) {
      for (const std::string& message : requests()) {
        for (std::size_t cut = 0; cut <= message.size(); ++cut) {
          WireClient& client = street.stranger();
          street.host().attach(client, "disk", {});
          client.says(message.substr(0, cut));
          go(client, how);
          client.hears_the_rest();
          ASSERT_TRUE(street.is_undisturbed()) << cut;
        }
      }
    }
  }
}

TEST(Protocol, S9_WhoGoesAwayWhileRequestsAreUnderWayLeavesNothing) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    SCOPED_TRACE(seed);
    Neighbourhood street(seed, Segments::random);
    NbdHost& host = street.host();
    host.put("disk", 0, pattern(1 * MiB));
    Probe& disk = host.probe("disk");
    WireClient& client = street.stranger();
    host.attach(client, "disk", {.structured = seed % 2 == 0, .meta = seed % 2 == 0});
    const std::string_view orders[] = {"read", "write", "map", "flush", "zeroes", "prefetch"};
    disk.held = {std::string(orders[host.world.scheduler.choose(6)])};
    for (const std::string& message : requests()) {
      if (number(message.substr(6, 2)) != cmd::disc) client.says(message);
    }
    client.sends({.length = 1 * MiB});
    if (host.world.scheduler.one_in(2)) host.world.scheduler.settle();

    go(client, all_goings[host.world.scheduler.choose(3)]);
    if (host.world.scheduler.one_in(2)) host.world.scheduler.settle();
    disk.release();
    client.hears_the_rest();

    EXPECT_TRUE(street.is_undisturbed());
  }
}

TEST(Robustness, GarbageInOptionsHarmsOnlyItsSender) {
  Neighbourhood street;
  std::uint64_t seed = 0;
  for (const std::string& message : options()) {
    for (std::size_t at = 0; at < message.size(); ++at) {
      for (const unsigned flip : {0x01U, 0x80U, 0xffU}) {
        street.host().world.scheduler.choose(++seed);
        std::string said = be32(3) + message + option(opt::go, info_data("disk")) +
                           Request{.length = 10, .cookie = 1}.bytes();
        said[4 + at] = static_cast<char>(static_cast<unsigned char>(said[4 + at]) ^ flip);
        WireClient& client = street.stranger();
        client.says(said);
        client.hears_the_rest();
        client.leaves();
        ASSERT_TRUE(street.is_undisturbed()) << at;
      }
    }
  }
}

TEST(Robustness, GarbageInRequestsHarmsOnlyItsSender) {
  Neighbourhood street;
  for (const std::string& message : requests()) {
    for (std::size_t at = 0; at < std::min<std::size_t>(message.size(), 28); ++at) {
      for (const unsigned flip : {0x01U, 0x08U, 0x80U, 0xffU}) {
        std::string said = message + Request{.length = 10, .cookie = 1}.bytes();
        said[at] = static_cast<char>(static_cast<unsigned char>(said[at]) ^ flip);
        WireClient& client = street.stranger();
        street.host().attach(client, "disk", {});
        client.says(said);
        client.hears_the_rest();
        client.leaves();
        ASSERT_TRUE(street.is_undisturbed()) << at;
      }
    }
  }
}

TEST(Robustness, RandomBytesHarmOnlyTheirSender) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    Neighbourhood street(seed, sim::all_segments[seed % 3]);
    sim::Scheduler& dice = street.host().world.scheduler;
    const std::vector<std::string> known = seed % 2 == 0 ? options() : requests();

    for (int round = 0; round < 10; ++round) {
      WireClient& client = street.stranger();
      if (seed % 2 == 0) {
        client.says(be32(3));
      } else {
        street.host().attach(client, "disk", {.structured = dice.one_in(2), .meta = false});
      }
      std::string said;
      for (int i = 0; i < 6; ++i) {
        std::string message = known[dice.choose(known.size())];
        for (std::uint64_t flips = dice.choose(3); flips > 0; --flips) {
          message[dice.choose(message.size())] = static_cast<char>(dice.choose(256));
        }
        said += message.substr(0, dice.one_in(4) ? dice.choose(message.size()) : message.size());
      }
      client.says(said);
      if (dice.one_in(2)) client.hears_the_rest();
      client.leaves();
      ASSERT_TRUE(street.is_undisturbed());
    }
  }
}

TEST(Robustness, WhoNeverReadsTakesBoundedMemoryAndDelaysNobody) {
  for (const std::uint16_t command :
       {cmd::read, cmd::block_status, cmd::flush, std::uint16_t{99}}) {
    for (const Attach how : {Attach{}, simple_replies}) {
      Neighbourhood street;
      NbdHost& host = street.host();
      host.put("disk", 0, pattern(500'000));
      sim::Line narrow;
      narrow.to_client_max = 2000;
      for (int i = 0; i < 3; ++i) {
        WireClient& deaf = host.attached("disk", how, narrow);
        const std::string request =
            Request{.command = command, .length = 500'000, .cookie = 1}.bytes();
        while (deaf.says(request)) {
        }
      }

      host.world.scheduler.settle();
      EXPECT_LE(host.world.buffers.lent(), 3 * (64 * MiB + 256 * KiB));
      for (std::size_t i = 1; i <= 3; ++i) host.clients[i]->leaves();
      EXPECT_TRUE(street.is_undisturbed());
    }
  }
}

TEST(Robustness, RubbishClientsDoNotDelayAStop) {
  NbdHost host;
  host.put("disk", 0, pattern(4 * MiB));
  sim::Line narrow;
  narrow.to_client_max = 1000;
  WireClient& deaf = host.attached("disk", {}, narrow);
  for (int i = 0; i < 100; ++i) deaf.sends({.length = 4 * MiB});
  for (const std::string& message : requests()) {
    for (const std::size_t cut : {std::size_t{1}, message.size() / 2, message.size() - 1}) {
      host.attached().says(message.substr(0, cut));
    }
  }
  for (const std::string& message : options()) {
    WireClient& client = host.client();
    client.says(be32(3) + message.substr(0, message.size() - 1));
  }
  host.world.scheduler.settle();

  host.begin_stop();
  host.world.scheduler.pass(milliseconds(10'200));

  EXPECT_TRUE(host.stopped());
  EXPECT_EQ(host.connections(), 0U);
}

TEST(Robustness, AStopAtAnyMomentEndsAndLeavesNothing) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(seed);
    HostOptions options(sim::all_segments[seed % 2]);
    options.seed = seed;
    NbdHost host(options);
    sim::Scheduler& dice = host.world.scheduler;
    host.put("disk", 0, pattern(2 * MiB));
    for (int i = 0; i < 5; ++i) {
      sim::Line line = host.line();
      line.to_client_max = 1 + dice.choose(200'000);
      WireClient& client =
          host.attached("disk", {.structured = dice.one_in(2), .meta = false}, line);
      for (std::uint64_t n = dice.choose(10); n > 0; --n) {
        client.sends({.offset = dice.choose(MiB), .length = dice.choose(1 * MiB)});
      }
      client.says(requests()[dice.choose(11)].substr(0, 20 + dice.choose(60)));
    }
    for (std::uint64_t n = dice.choose(3000); n > 0; --n)
      dice.run_until([turn = 0]() mutable { return ++turn > 1; });

    host.begin_stop();
    for (int i = 0; i < 20; ++i) {
      host.world.scheduler.pass(milliseconds(dice.choose(700)));
      host.clients[dice.choose(host.clients.size())]->hears_the_rest();
    }
    host.world.scheduler.pass(seconds(11));

    EXPECT_TRUE(host.stopped());
    EXPECT_TRUE(host.nobody_is_left());
  }
}

asio::awaitable<void> drain(graph::BlockBackend& view, bool& drained) {
  co_await view.drain();
  drained = true;
}

// D-2: what arrives while the view is drained waits; it is not refused.
TEST(Robustness, RequestsWaitWhileTheViewIsDrained) {
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    HostOptions options;
    options.seed = seed;
    NbdHost host(options);
    graph::BlockBackend& view = host.server.find("disk")->view();
    WireClient& client = host.attached();
    bool drained = false;
    spawn(host.world.home.executor, Gate::Pass(), drain(view, drained));
    host.world.scheduler.settle();
    ASSERT_TRUE(drained);

    std::vector<std::uint64_t> asked;
    asked.push_back(client.sends({.command = cmd::write, .length = 3, .payload = "abc"}));
    asked.push_back(client.sends({.offset = 512, .length = 512}));
    for (const std::uint16_t command :
         {cmd::flush, cmd::trim, cmd::cache, cmd::write_zeroes, cmd::block_status}) {
      asked.push_back(client.sends({.command = command, .offset = 1 * MiB, .length = 512}));
    }
    host.world.scheduler.pass(std::chrono::hours(1));
    EXPECT_EQ(client.hears_the_rest(), "");
    EXPECT_THAT(host.probe("disk").calls, testing::IsEmpty());
    view.undrain();

    for (const std::uint64_t cookie : asked) EXPECT_TRUE(client.answer(cookie).good());
    EXPECT_EQ(host.get("disk", {0, 3}), "abc");
  }
}

TEST(Robustness, ManyRequestsWaitWhileTheViewIsDrainedAndOtherExportsGoOn) {
  NbdHost host;
  graph::BlockBackend& view = host.server.find("disk")->view();
  WireClient& client = host.attached();
  WireClient& other = host.attached("");
  bool drained = false;
  spawn(host.world.home.executor, Gate::Pass(), drain(view, drained));

  std::vector<std::uint64_t> asked;
  for (int i = 0; i < 1000; ++i) asked.push_back(client.sends({.length = 512}));
  host.world.scheduler.settle();
  EXPECT_TRUE(other.reads(0, 512).good());
  view.undrain();

  for (const std::uint64_t cookie : asked) EXPECT_TRUE(client.answer(cookie).good());
}

// D-3: a half-received request and a half-sent reply are outside of the view.
TEST(Robustness, HalfARequestOrReplyDoesNotHoldADrainUp) {
  for (const std::string& message : requests()) {
    for (std::size_t cut = 0; cut < message.size(); ++cut) {
      NbdHost host;
      host.put("disk", 0, pattern(100'000));
      graph::BlockBackend& view = host.server.find("disk")->view();
      sim::Line narrow;
      narrow.to_client_max = 1000;
      WireClient& deaf = host.attached("disk", {}, narrow);
      const std::uint64_t read = deaf.sends({.length = 100'000});
      WireClient& half = host.attached();
      half.says(message.substr(0, cut));
      host.world.scheduler.settle();

      bool drained = false;
      spawn(host.world.home.executor, Gate::Pass(), drain(view, drained));
      host.world.scheduler.settle();
      EXPECT_TRUE(drained) << cut;
      view.undrain();

      if (cut == 0) {
        EXPECT_EQ(difference(deaf.answer(read).data, pattern(100'000)), "");
      }
      half.says(message.substr(cut));
      if (number(message.substr(6, 2)) != cmd::disc) {
        EXPECT_NE(half.hears(16), "");
      }
    }
  }
}

TEST(Robustness, ALineCutInsideOfAReplyLeavesNothing) {
  Neighbourhood street;
  NbdHost& host = street.host();
  host.put("disk", 0, pattern(1000));
  sim::Line narrow;
  for (std::size_t room = 1; room < 120; ++room) {
    narrow.to_client_max = room;
    for (const Going how : all_goings) {
      WireClient& client = host.client(narrow);
      host.attach(client, "disk", {});
      client.says(Request{.length = 20, .cookie = 1}.bytes() +
                  Request{.length = 5, .flags = 0xff, .cookie = 2}.bytes() +
                  Request{.command = cmd::block_status, .length = 512, .cookie = 2}.bytes());
      host.world.scheduler.settle();
      go(client, how);
      if (how == Going::ends) client.hears_the_rest();
      ASSERT_TRUE(street.is_undisturbed()) << room;
    }
  }
}

}  // namespace
}  // namespace test
