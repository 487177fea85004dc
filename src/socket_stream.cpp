#include "src/socket_stream.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <asio/generic/stream_protocol.hpp>
#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>
#include <cerrno>
#include <climits>
#include <optional>
#include <utility>

#include "src/peer.h"

namespace app {
namespace {

// A Unix socket's default holds less than one large request, so that each would take many wake-ups.
constexpr int local_buffer_size = 2 * static_cast<int>(MiB);

template <class T>
void set(int descriptor, int level, int option, T value) {
  // advice: a socket that does not take it works all the same
  (void)::setsockopt(descriptor, level, option, &value, sizeof value);
}

void set_buffer(int descriptor, int forced, int option) {
  if (::setsockopt(descriptor, SOL_SOCKET, forced, &local_buffer_size, sizeof local_buffer_size) !=
      0) {
    set(descriptor, SOL_SOCKET, option, local_buffer_size);  // as far as the system's limit allows
  }
}

// A peer that vanished without a word is noticed: when data is not acknowledged, or, while nothing
// is said, by asking.
void notice_vanished(int descriptor, std::chrono::seconds timeout) {
  if (timeout.count() == 0) return;
  const auto seconds = static_cast<int>(std::min<std::int64_t>(timeout.count(), 32767));
  constexpr int questions = 4;
  const int interval = std::max(1, seconds / (2 * questions));
  set(descriptor, SOL_SOCKET, SO_KEEPALIVE, 1);
  set(descriptor, IPPROTO_TCP, TCP_KEEPIDLE, std::max(1, seconds - questions * interval));
  set(descriptor, IPPROTO_TCP, TCP_KEEPINTVL, interval);
  set(descriptor, IPPROTO_TCP, TCP_KEEPCNT, questions);
  set(descriptor, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<unsigned>(seconds) * 1000);
}

class SocketStream final : public Stream {
 public:
  using Protocol = asio::generic::stream_protocol;
  using Socket = Protocol::socket;

  SocketStream(Socket socket, int family, Peer peer)
      : socket_(std::move(socket)),
        family_(family),
        peer_(std::move(peer.text)),
        origin_(std::move(peer.origin)),
        local_(peer.is_local) {}
  ~SocketStream() override { drop_released(); }

  Result<std::size_t> read_now(std::span<std::byte> out) override {
    if (out.empty()) return 0;
    for (;;) {
      const ssize_t n = ::recv(descriptor(), out.data(), out.size(), MSG_DONTWAIT);
      if (n > 0) return static_cast<std::size_t>(n);
      if (n == 0)
        return failure(Errc::connection_lost, peer_ + ": the peer has closed the connection");
      if (errno == EINTR) continue;
      if (errno == EAGAIN) return 0;
      return lost(errno);
    }
  }

  Result<std::size_t> write_now(const ConstBuffers& data) override {
    if (data.empty()) return 0;
    const auto spans = data.spans();
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(as_iovecs(spans));  // sendmsg only reads them
    message.msg_iovlen = std::min<std::size_t>(spans.size(), IOV_MAX);
    for (;;) {
      const ssize_t n = ::sendmsg(descriptor(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n >= 0) return static_cast<std::size_t>(n);
      if (errno == EINTR) continue;
      if (errno == EAGAIN) return 0;
      return lost(errno);
    }
  }

  Task<> readable() override { return wait(Socket::wait_read); }
  Task<> writable() override { return wait(Socket::wait_write); }

  void close() override {
    drop_released();
    if (!is_open()) return;
    asio::error_code ignored;
    socket_->shutdown(Socket::shutdown_both, ignored);
    socket_->close(ignored);  // whoever waits is woken with operation_aborted
  }

  void release() override {
    if (!is_open()) return;
    asio::error_code problem;
    released_ = socket_->release(problem);
    if (problem) released_ = -1;
    socket_.reset();
  }
  Result<> assign(const asio::any_io_executor& executor) override {
    if (released_ < 0) return failure(Errc::connection_lost, peer_ + ": the stream is closed");
    asio::error_code problem;
    socket_.emplace(executor);
    socket_->assign(Protocol(family_, 0), released_, problem);
    if (problem) {
      drop_released();
      return lost(problem.value());
    }
    released_ = -1;
    return ok;
  }

  std::string peer() const override { return peer_; }
  std::string origin() const override { return origin_; }
  bool is_local() const override { return local_; }

 private:
  bool is_open() const { return socket_ && socket_->is_open(); }
  // -1 after close(): then each call fails with EBADF.
  int descriptor() { return is_open() ? socket_->native_handle() : -1; }
  void drop_released() {
    if (released_ >= 0) ::close(std::exchange(released_, -1));
  }

  Task<> wait(Socket::wait_type what) {
    if (!is_open()) co_return failure(Errc::canceled, peer_ + ": the stream is closed");
    asio::error_code problem;
    co_await socket_->async_wait(what, asio::redirect_error(asio::use_awaitable, problem));
    if (problem == asio::error::operation_aborted) {
      co_return failure(Errc::canceled, peer_ + ": the stream is closed");
    }
    if (problem) co_return lost(problem.value());
    co_return ok;
  }

  // Whatever the system says: this connection is over.
  std::unexpected<Error> lost(int number) const {
    return failure(Errc::connection_lost, error_from_errno(number, peer_).message);
  }

  std::optional<Socket> socket_;  // none between release() and assign()
  int released_ = -1;             // the descriptor meanwhile
  const int family_;
  const std::string peer_;
  const std::string origin_;
  const bool local_;
};

}  // namespace

Result<std::unique_ptr<Stream>> socket_stream(const asio::any_io_executor& executor, int descriptor,
                                              std::chrono::seconds peer_timeout) {
  sockaddr_storage remote{};
  socklen_t length = sizeof remote;
  asio::error_code problem;
  SocketStream::Socket socket(executor);
  if (::getpeername(descriptor, reinterpret_cast<sockaddr*>(&remote), &length) != 0) {
    problem.assign(errno, asio::system_category());  // it has left already
  } else {
    const asio::generic::stream_protocol protocol(remote.ss_family, 0);
    socket.assign(protocol, descriptor, problem);
  }
  if (problem) {
    ::close(descriptor);
    return std::unexpected(error_from_errno(problem.value(), "a new connection"));
  }
  if (remote.ss_family == AF_UNIX) {
    set_buffer(descriptor, SO_SNDBUFFORCE, SO_SNDBUF);
    set_buffer(descriptor, SO_RCVBUFFORCE, SO_RCVBUF);
  } else {
    set(descriptor, IPPROTO_TCP, TCP_NODELAY, 1);
    notice_vanished(descriptor, peer_timeout);
  }
  return std::make_unique<SocketStream>(std::move(socket), remote.ss_family, peer_of(descriptor));
}

}  // namespace app
