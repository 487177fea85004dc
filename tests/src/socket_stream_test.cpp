#include "src/socket_stream.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <asio/io_context.hpp>
#include <climits>
#include <optional>

#include "graph/base/task.h"

namespace app {
namespace {

// Two ends of one connection: a stream, and the bare descriptor of its peer.
class Connected : public testing::Test {
 protected:
  void SetUp() override {
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends.data()), 0);
    auto made = socket_stream(loop.get_executor(), ends[0]);
    ASSERT_TRUE(made) << made.error().message;
    stream = *std::move(made);
    peer = ends[1];
  }
  void TearDown() override { leave(); }

  void leave() {
    if (peer >= 0) ::close(std::exchange(peer, -1));
  }
  void say(std::string_view text) {
    ASSERT_EQ(::send(peer, text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  }
  // Starts a wait; its result is in `waited` once the loop has run.
  void start(Task<> wait) {
    const auto root = [](Task<> inner, std::optional<Result<>>& out) -> asio::awaitable<void> {
      out.emplace(co_await std::move(inner));
    };
    spawn(loop.get_executor(), gate.enter_anyway(), root(std::move(wait), waited));
    loop.poll();
    loop.restart();
  }

  asio::io_context loop{1};
  Gate gate;
  std::unique_ptr<Stream> stream;
  int peer = -1;
  std::optional<Result<>> waited;
  std::array<std::byte, 16> bytes{};
};

TEST_F(Connected, HasNothingToReadBeforeThePeerSaysSomething) {
  EXPECT_EQ(stream->read_now(bytes).value_or(99), 0u);

  say("abc");

  EXPECT_EQ(stream->read_now(bytes).value_or(99), 3u);
  EXPECT_EQ(bytes[2], std::byte{'c'});
}

TEST_F(Connected, WakesAReaderWhenThePeerSaysSomething) {
  start(stream->readable());
  EXPECT_FALSE(waited);

  say("a");
  loop.run();

  ASSERT_TRUE(waited);
  EXPECT_TRUE(*waited);
}

TEST_F(Connected, LosesThePeerThatLeaves) {
  leave();

  const auto got = stream->read_now(bytes);
  const auto sent = stream->write_now(ConstBuffers(std::span<const std::byte>(bytes)));

  ASSERT_FALSE(got);
  EXPECT_EQ(got.error().code, Errc::connection_lost);
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().code, Errc::connection_lost);
}

TEST_F(Connected, WakesAReaderWhenItIsClosed) {
  start(stream->readable());

  stream->close();
  stream->close();
  loop.run();

  ASSERT_TRUE(waited);
  ASSERT_FALSE(*waited);
  EXPECT_EQ(waited->error().code, Errc::canceled);
  EXPECT_EQ(stream->read_now(bytes).error().code, Errc::connection_lost);
}

TEST_F(Connected, WakesAWriterWhenThePeerHasRead) {
  std::vector<std::byte> much(64 * KiB);
  const ConstBuffers data(std::span<const std::byte>(much.data(), much.size()));
  while (stream->write_now(data).value_or(0) > 0) {
  }
  start(stream->writable());
  EXPECT_FALSE(waited);

  while (::recv(peer, much.data(), much.size(), 0) > 0) {
  }
  loop.run();

  ASSERT_TRUE(waited);
  EXPECT_TRUE(*waited);
  EXPECT_GT(stream->write_now(data).value_or(0), 0u);
}

TEST_F(Connected, SendsListsThatAreLongerThanTheSystemTakesAtOnce) {
  ConstBuffers list;
  for (int i = 0; i < IOV_MAX + 10; ++i) list.add(std::span<const std::byte>(bytes).first(1));

  const auto first = stream->write_now(list);
  ASSERT_TRUE(first) << first.error().message;
  const auto second = stream->write_now(list.slice(*first, list.size() - *first));

  EXPECT_EQ(*first, static_cast<std::size_t>(IOV_MAX));
  EXPECT_EQ(second.value_or(0), 10u);
}

TEST_F(Connected, SaysWhoIsAtTheOtherEnd) {
  EXPECT_EQ(stream->peer(), "unix pid " + std::to_string(::getpid()) + " uid " +
                                std::to_string(::getuid()) + " gid " + std::to_string(::getgid()));
}

// A connection over the loopback interface, in `accepted` and `connected`.
class TcpPair {
 public:
  TcpPair() {
    const int listening = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    auto* const plain = reinterpret_cast<sockaddr*>(&address);
    const bool listens = ::bind(listening, plain, length) == 0 && ::listen(listening, 1) == 0 &&
                         ::getsockname(listening, plain, &length) == 0;
    connected = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listens && ::connect(connected, plain, length) == 0) {
      accepted = ::accept4(listening, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    }
    ::close(listening);
  }
  ~TcpPair() { ::close(connected); }
  int accepted = -1;
  int connected = -1;
};

TEST(Protocol, S7_SmallMessagesOverTcpAreNotDelayed) {
  asio::io_context loop{1};
  const TcpPair pair;
  ASSERT_GE(pair.accepted, 0);
  const int same_socket = ::dup(pair.accepted);

  const auto stream = socket_stream(loop.get_executor(), pair.accepted);

  int on = 0;
  socklen_t length = sizeof on;
  EXPECT_TRUE(stream);
  EXPECT_EQ(::getsockopt(same_socket, IPPROTO_TCP, TCP_NODELAY, &on, &length), 0);
  EXPECT_EQ(on, 1);
  ::close(same_socket);
}

}  // namespace
}  // namespace app
