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

class SocketStream final : public Stream {
 public:
  using Socket = asio::generic::stream_protocol::socket;

  SocketStream(Socket socket, std::string peer)
      : socket_(std::move(socket)), peer_(std::move(peer)) {}

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
    if (!socket_.is_open()) return;
    asio::error_code ignored;
    socket_.shutdown(Socket::shutdown_both, ignored);
    socket_.close(ignored);  // whoever waits is woken with operation_aborted
  }

  std::string peer() const override { return peer_; }

 private:
  // -1 after close(): then each call fails with EBADF.
  int descriptor() { return socket_.is_open() ? socket_.native_handle() : -1; }

  Task<> wait(Socket::wait_type what) {
    if (!socket_.is_open()) co_return failure(Errc::canceled, peer_ + ": the stream is closed");
    asio::error_code problem;
    co_await socket_.async_wait(what, asio::redirect_error(asio::use_awaitable, problem));
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

  Socket socket_;
  const std::string peer_;
};

}  // namespace

Result<std::unique_ptr<Stream>> socket_stream(const asio::any_io_executor& executor,
                                              int descriptor) {
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
    set(descriptor, SOL_SOCKET, SO_KEEPALIVE, 1);
  }
  std::string peer = peer_of(descriptor).text;
  return std::make_unique<SocketStream>(std::move(socket), std::move(peer));
}

}  // namespace app
