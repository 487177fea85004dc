// Several workers, with each engine: every byte is where it belongs, whichever worker it went
// through, and every client is served, however often graphs move while it comes.
#include "src/site.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <asio/post.hpp>
#include <atomic>
#include <cstring>
#include <fstream>
#include <random>
#include <thread>

#include "formats/formats.h"
#include "graph/protocol/protocol.h"
#include "nbd/wire.h"
#include "src/crew.h"
#include "src/listeners.h"
#include "src/socket_stream.h"
#include "src/toml.h"
#include "tests/support/real_world.h"

namespace app {
namespace {

constexpr std::array drivers{&graph::file_driver, &graph::memory_driver, &formats::raw_driver};
constexpr std::size_t connections_per_export = 16;
constexpr std::size_t rounds = 40;
constexpr std::size_t block = 4096;
constexpr std::uint64_t area = 256 * KiB;  // of each connection

// A client on a thread of its own, over a socket that blocks.
class BlockingClient {
 public:
  explicit BlockingClient(int descriptor) : descriptor_(descriptor) {}
  ~BlockingClient() { ::close(descriptor_); }
  BlockingClient(const BlockingClient&) = delete;
  BlockingClient& operator=(const BlockingClient&) = delete;

  bool attach(const std::string& name) {
    std::array<std::byte, sizeof(nbd::Greeting)> greeting;
    if (!hear(greeting)) return false;
    const Be<std::uint32_t> flags = 3;
    nbd::OptionHeader option;
    option.magic = nbd::option_magic;
    option.option = nbd::Option::export_name;
    option.length = static_cast<std::uint32_t>(name.size());
    std::array<std::byte, sizeof(nbd::ExportNameReply)> reply;
    return say(bytes_of(flags)) && say(bytes_of(option)) && say(bytes_of(name)) && hear(reply);
  }
  bool write(std::uint64_t offset, std::span<const std::byte> data) {
    return ask(nbd::Command::write, {offset, data.size()}) && say(data) && was_good();
  }
  bool read(std::uint64_t offset, std::span<std::byte> out) {
    return ask(nbd::Command::read, {offset, out.size()}) && was_good() && hear(out);
  }
  bool flush() { return ask(nbd::Command::flush, {}) && was_good(); }
  void leave() { (void)ask(nbd::Command::disconnect, {}); }

 private:
  bool ask(nbd::Command command, Range range) {
    nbd::RequestHeader request;
    request.magic = nbd::request_magic;
    request.flags = 0;
    request.command = command;
    request.cookie = ++cookie_;
    request.offset = range.offset;
    request.length = static_cast<std::uint32_t>(range.length);
    return say(bytes_of(request));
  }
  bool was_good() {
    nbd::SimpleReply reply;
    return hear(std::as_writable_bytes(std::span(&reply, 1))) &&
           reply.error == nbd::WireError::none && reply.cookie == cookie_;
  }
  bool say(std::span<const std::byte> bytes) {
    return ::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(bytes.size());
  }
  bool hear(std::span<std::byte> bytes) {
    return ::recv(descriptor_, bytes.data(), bytes.size(), MSG_WAITALL) ==
           static_cast<ssize_t>(bytes.size());
  }
  const int descriptor_;
  std::uint64_t cookie_ = 0;
};

// Writes its own area and reads it back. False at the first byte that is wrong.
bool work(int descriptor, const std::string& name, std::size_t number) {
  BlockingClient client(descriptor);
  if (!client.attach(name)) return false;
  std::array<std::byte, block> mine;
  std::array<std::byte, block> read;
  bool good = true;
  for (std::size_t round = 0; round < rounds && good; ++round) {
    const std::uint64_t at = number * area + round % (area / block) * block;
    mine.fill(static_cast<std::byte>(number * 7 + round + 1));
    good = client.write(at, mine) && client.read(at, read) && read == mine;
    if (round % 8 == 7) good = good && client.flush();
  }
  client.leave();
  return good;
}

class ManyWorkers : public testing::TestWithParam<EngineKind> {};

std::vector<std::string> make_files(const test::TempDir& folder, std::size_t count) {
  std::vector<std::string> paths;
  for (std::size_t i = 0; i < count; ++i) {
    paths.push_back(folder.path("disk" + std::to_string(i)));
    std::ofstream(paths.back()).close();
    std::filesystem::resize_file(paths.back(), connections_per_export * area);
  }
  return paths;
}

std::string config_of(const std::vector<std::string>& paths) {
  std::string text = "[server]\nmax-connections = 1000\nmax-handshakes = 1000\n";
  for (std::size_t i = 0; i < paths.size(); ++i) {
    const std::string number = std::to_string(i);
    text += "[nodes.file" + number + "]\ndriver = 'file'\nfilename = '" + paths[i] +
            "'\n[nodes.disk" + number + "]\ndriver = 'raw'\nfile = 'file" + number +
            "'\n[exports.disk" + number + "]\nnode = 'disk" + number + "'\nwritable = true\n";
  }
  return text;
}

// Two ends of a line: the site has one of them already.
int connect(Worker& front, Site& site) {
  std::array<int, 2> ends{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) std::abort();
  auto stream = socket_stream(front.home().executor, ends[0]);
  if (!stream) std::abort();
  site.lobby().receive(*std::move(stream));
  return ends[1];
}

// The whole life of a site: opened, used by all clients twice, closed.
Task<int> live(Worker& front, Site& site, std::size_t exports, std::size_t& good) {
  CO_CHECK(co_await site.open());
  for (int turn = 0; turn < 2; ++turn) {  // the second time, every cell is without clients first
    std::vector<std::thread> clients;
    std::vector<int> outcomes(exports * connections_per_export);
    for (std::size_t i = 0; i < outcomes.size(); ++i) {
      clients.emplace_back([&outcomes, i, exports, peer = connect(front, site)] {
        outcomes[i] = work(peer, "disk" + std::to_string(i % exports), i / exports) ? 1 : 0;
      });
    }
    co_await site.lobby().empty();
    for (std::thread& client : clients) client.join();
    for (const int outcome : outcomes) good += static_cast<std::size_t>(outcome);
  }
  CO_CHECK(co_await site.close());
  co_return 0;
}

Task<std::size_t> nodes_of(Cell& cell) { co_return cell.graph().nodes().size(); }

// Visits all cells in turn until the site closes.
asio::awaitable<void> keep_visiting(Site& site, std::size_t& visits) {
  while (true) {
    for (const auto& cell : site.cells()) {
      const auto nodes = co_await site.visit(*cell, nodes_of(*cell));
      if (!nodes) co_return;
      if (*nodes == 2) ++visits;  // it is open
    }
  }
}

Task<int> live_with_visitors(Worker& front, Site& site, std::size_t exports, std::size_t& good,
                             std::size_t& visits) {
  Gate visitors;
  for (int i = 0; i < 3; ++i) {
    spawn(front.home().executor, visitors.enter_anyway(), keep_visiting(site, visits));
  }
  auto lived = co_await live(front, site, exports, good);
  co_await visitors.drained();
  co_return lived;
}

// One client stays with an export; another one comes to one that lives on the same worker.
Task<int> move(Worker& front, Site& site, bool& good) {
  CO_CHECK(co_await site.open());
  BlockingClient first(connect(front, site));
  std::thread attaching([&first] { (void)first.attach("disk0"); });
  while (site.lobby().guests() > 0) co_await yield();
  attaching.join();
  Home& before = site.cells()[2]->home();
  EXPECT_EQ(&before, &site.cells()[0]->home());

  std::thread second([&good, peer = connect(front, site)] { good = work(peer, "disk2", 0); });
  while (site.lobby().clients() > 1) co_await yield();
  second.join();

  EXPECT_NE(&site.cells()[2]->home(), &before);
  first.leave();
  co_await site.lobby().empty();
  CO_CHECK(co_await site.close());
  co_return 0;
}

TEST_P(ManyWorkers, TakeAGraphOverWithItsFile) {
  test::TempDir folder;
  const auto root = parse_toml(config_of(make_files(folder, 3)), "a.toml");
  ASSERT_TRUE(root);
  const auto config = read_config(*root, drivers);
  ASSERT_TRUE(config) << config.error().message;
  const std::unique_ptr<Log> log = stderr_log(LogLevel::error);
  auto front = Worker::create(*log, GetParam());
  if (!front) GTEST_SKIP() << front.error().message;
  MemoryAccount memory(64 * MiB);
  bool good = false;
  {
    auto crew = Crew::create(2, GetParam(), *log, memory);
    ASSERT_TRUE(crew) << crew.error().message;
    Site site((*front)->home(), (*crew)->homes(), *config, drivers);

    const Result<int> status = (*front)->run(move(**front, site, good));

    EXPECT_TRUE(status) << status.error().message;
  }

  EXPECT_TRUE(good);
}

TEST_P(ManyWorkers, CarryOutWhatManyClientsAsk) {
  constexpr std::size_t exports = 6;
  test::TempDir folder;
  const auto root = parse_toml(config_of(make_files(folder, exports)), "a.toml");
  ASSERT_TRUE(root);
  const auto config = read_config(*root, drivers);
  ASSERT_TRUE(config) << config.error().message;
  const std::unique_ptr<Log> log = stderr_log(LogLevel::error);
  auto front = Worker::create(*log, GetParam());
  if (!front) GTEST_SKIP() << front.error().message;
  MemoryAccount memory(64 * MiB);
  std::size_t good = 0;
  {
    auto crew = Crew::create(4, GetParam(), *log, memory);
    ASSERT_TRUE(crew) << crew.error().message;
    Site site((*front)->home(), (*crew)->homes(), *config, drivers);

    const Result<int> status = (*front)->run(live(**front, site, exports, good));

    EXPECT_TRUE(status) << status.error().message;
  }

  EXPECT_EQ(good, 2 * exports * connections_per_export);
  EXPECT_EQ(memory.used(), 0U);
}

// Counts how often a graph has moved.
class MoveLog final : public Log {
 public:
  bool enabled(LogLevel) const override { return true; }
  void set_level(LogLevel) override {}
  std::atomic<std::size_t> moves = 0;

 private:
  void put(LogLevel, std::string_view text, const LogFields&) override {
    if (text.contains("takes over a graph")) ++moves;
  }
};

constexpr std::size_t storm_exports = 5;
constexpr std::size_t storm_clients = 8;  // at a time
constexpr std::size_t storm_visits = 200;  // of each

// None when there is no answer for a minute: then a client has been forgotten.
int connect_tcp(std::uint16_t port) {
  const int descriptor = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval patience{60, 0};
  ::setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_port = htons(port);
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(descriptor, reinterpret_cast<const sockaddr*>(&where), sizeof where) != 0) {
    ADD_FAILURE() << std::strerror(errno);
  }
  return descriptor;
}

// Comes, asks for something or for nothing, and goes, with or without a word. How many times it was
// served.
std::size_t visit_often(std::uint16_t port, unsigned seed) {
  std::minstd_rand random(seed);
  std::size_t served = 0;
  std::array<std::byte, block> read{};
  for (std::size_t i = 0; i < storm_visits; ++i) {
    BlockingClient client(connect_tcp(port));
    bool good = client.attach("disk" + std::to_string(random() % storm_exports));
    if (random() % 4 != 0) good = good && client.read(random() % 16 * block, read);
    if (random() % 4 == 0) good = good && client.flush();
    if (random() % 2 == 0) client.leave();
    if (good) ++served;
  }
  return served;
}

Task<int> storm(Worker& front, Site& site, std::size_t& served) {
  CO_CHECK(co_await site.open());
  Listeners listeners(
      front.home(), std::chrono::seconds(0),
      [&site](std::unique_ptr<Stream> stream) { site.lobby().receive(std::move(stream)); });
  std::vector<Listen> where;
  where.push_back({*parse_address("tcp:127.0.0.1:0"), {}});
  CO_CHECK(co_await listeners.open(std::move(where), {}));
  listeners.start();
  const auto port = static_cast<std::uint16_t>(listeners.addresses().front().port);

  std::size_t left = storm_clients;
  WaitQueue ended;
  std::vector<std::thread> clients;
  for (unsigned i = 0; i < storm_clients; ++i) {
    clients.emplace_back([&, port, i] {
      const std::size_t mine = visit_often(port, i + 1);
      asio::post(front.home().executor, [&, mine] {
        served += mine;
        --left;
        ended.notify_all();
      });
    });
  }
  while (left > 0) co_await ended.wait();
  for (std::thread& client : clients) client.join();
  co_await listeners.stop();
  co_await site.lobby().empty();
  CO_CHECK(co_await site.close());
  co_return 0;
}

TEST_P(ManyWorkers, ForgetNobodyWhileGraphsMove) {
  test::TempDir folder;
  const auto root = parse_toml(config_of(make_files(folder, storm_exports)), "a.toml");
  ASSERT_TRUE(root);
  const auto config = read_config(*root, drivers);
  ASSERT_TRUE(config) << config.error().message;
  MoveLog log;
  auto front = Worker::create(log, GetParam());
  if (!front) GTEST_SKIP() << front.error().message;
  MemoryAccount memory(64 * MiB);
  std::size_t served = 0;
  {
    auto crew = Crew::create(4, GetParam(), log, memory);
    ASSERT_TRUE(crew) << crew.error().message;
    Site site((*front)->home(), (*crew)->homes(), *config, drivers);

    const Result<int> status = (*front)->run(storm(**front, site, served));

    EXPECT_TRUE(status) << status.error().message;
  }

  EXPECT_EQ(served, storm_clients * storm_visits);
  EXPECT_GT(log.moves.load(), 0U);
  EXPECT_EQ(memory.used(), 0U);
}

TEST_P(ManyWorkers, AreVisitedWhileClientsComeAndGraphsMove) {
  constexpr std::size_t exports = 3;
  test::TempDir folder;
  const auto root = parse_toml(config_of(make_files(folder, exports)), "a.toml");
  ASSERT_TRUE(root);
  const auto config = read_config(*root, drivers);
  ASSERT_TRUE(config) << config.error().message;
  const std::unique_ptr<Log> log = stderr_log(LogLevel::error);
  auto front = Worker::create(*log, GetParam());
  if (!front) GTEST_SKIP() << front.error().message;
  MemoryAccount memory(64 * MiB);
  std::size_t good = 0;
  std::size_t visits = 0;
  {
    auto crew = Crew::create(2, GetParam(), *log, memory);
    ASSERT_TRUE(crew) << crew.error().message;
    Site site((*front)->home(), (*crew)->homes(), *config, drivers);

    const Result<int> status =
        (*front)->run(live_with_visitors(**front, site, exports, good, visits));

    EXPECT_TRUE(status) << status.error().message;
  }

  EXPECT_EQ(good, 2 * exports * connections_per_export);
  EXPECT_GT(visits, 10U);
}

INSTANTIATE_TEST_SUITE_P(Engines, ManyWorkers,
                         testing::Values(EngineKind::io_uring, EngineKind::threads),
                         [](const auto& tested) {
                           return tested.param == EngineKind::io_uring ? "io_uring" : "threads";
                         });

}  // namespace
}  // namespace app
