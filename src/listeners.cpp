#include "src/listeners.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <asio/ip/tcp.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>
#include <cerrno>
#include <cstring>
#include <optional>

#include "src/socket_stream.h"

namespace app {

// A listening socket, and the file that belongs to it when it is a Unix one.
class Listener {
 public:
  Listener(const asio::any_io_executor& executor, int descriptor, Address where)
      : socket(executor, descriptor), address(std::move(where)) {}
  ~Listener() { close(); }

  void remember_file() {
    struct stat status{};
    if (::lstat(address.path.c_str(), &status) == 0) file = {status.st_dev, status.st_ino};
  }

  void close() {
    struct stat status{};
    // somebody may have put another one in its place
    if (file && ::lstat(address.path.c_str(), &status) == 0 &&
        *file == std::pair(status.st_dev, status.st_ino)) {
      ::unlink(address.path.c_str());
    }
    file.reset();
    asio::error_code ignored;
    if (socket.is_open()) socket.close(ignored);
    if (pause) pause->cancel();
  }

  asio::posix::stream_descriptor socket;
  Address address;
  std::optional<std::pair<dev_t, ino_t>> file;
  std::unique_ptr<Timer> pause;  // while there are no descriptors left
};

namespace {

constexpr int backlog = 128;
constexpr auto pause_length = std::chrono::milliseconds(100);
// Accepted in one go before others of this thread get their turn.
constexpr int burst_max = 32;

class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return number_; }
  int release() { return std::exchange(number_, -1); }

 private:
  int number_;
};

std::unexpected<Error> system_failure(int number) {
  return failure(errc_from_errno(number), std::generic_category().message(number));
}

struct Place {
  sockaddr_storage bytes{};
  socklen_t length = 0;
  const sockaddr* address() const { return reinterpret_cast<const sockaddr*>(&bytes); }
};

// Errors: the reason alone; whoever knows the address as it was written adds it.
Result<int> bound_socket(const Place& place) {
  Descriptor socket(::socket(place.bytes.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (socket.get() < 0) return system_failure(errno);
  const int yes = 1;
  if (place.bytes.ss_family != AF_UNIX) {
    (void)::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  }
  if (place.bytes.ss_family == AF_INET6) {
    (void)::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof yes);
  }
  if (::bind(socket.get(), place.address(), place.length) != 0) return system_failure(errno);
  if (::listen(socket.get(), backlog) != 0) return system_failure(errno);
  return socket.release();
}

Place local_place(const std::string& path) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  path.copy(name.sun_path, sizeof name.sun_path - 1);
  Place place;
  std::memcpy(&place.bytes, &name, sizeof name);
  place.length = sizeof name;
  return place;
}

// The file of a server that is gone: a socket, and nobody answers.
bool is_stale(const std::string& path, const Place& place) {
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0 || !S_ISSOCK(status.st_mode)) return false;
  const Descriptor caller(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  return caller.get() >= 0 && ::connect(caller.get(), place.address(), place.length) != 0 &&
         errno == ECONNREFUSED;
}

Result<int> bind_local(const std::string& path) {
  const Place place = local_place(path);
  Result<int> bound = bound_socket(place);
  if (bound || !is_stale(path, place)) return bound;
  if (::unlink(path.c_str()) != 0) return system_failure(errno);
  return bound_socket(place);
}

std::uint16_t port_of(int descriptor) {
  sockaddr_storage name{};
  socklen_t length = sizeof name;
  if (::getsockname(descriptor, reinterpret_cast<sockaddr*>(&name), &length) != 0) return 0;
  if (name.ss_family == AF_INET6) return ntohs(reinterpret_cast<sockaddr_in6&>(name).sin6_port);
  return ntohs(reinterpret_cast<sockaddr_in&>(name).sin_port);
}

bool is_shortage(int number) {
  return number == EMFILE || number == ENFILE || number == ENOBUFS || number == ENOMEM;
}

}  // namespace

Listeners::Listeners(Home& home, std::chrono::seconds peer_timeout, Accepted accepted)
    : home_(home), peer_timeout_(peer_timeout), accepted_(std::move(accepted)) {}

Listeners::~Listeners() = default;

Task<> Listeners::open(const std::vector<Listen>& wanted) {
  for (const Listen& listen : wanted) {
    Result<> opened = co_await open_one(listen.address);
    if (!opened) {
      close();
      Error error = std::move(opened).error();
      error.message.insert(0, "cannot listen on " + printable(listen.address.text()) + ": ");
      co_return std::unexpected(at_position(listen.position, std::move(error)));
    }
  }
  co_return ok;
}

Task<> Listeners::open_one(const Address& address) {
  if (address.family == Address::Family::tcp) co_return co_await bind_tcp(address);
  CO_TRY(const int descriptor, bind_local(address.path));
  listeners_.push_back(std::make_unique<Listener>(home_.executor, descriptor, address));
  listeners_.back()->remember_file();
  co_return ok;
}

// A name may stand for several addresses: all of them are listened on.
Task<std::vector<asio::ip::tcp::endpoint>> Listeners::look_up(const Address& address) {
  std::vector<asio::ip::tcp::endpoint> found;
  asio::error_code problem;
  const auto number = asio::ip::make_address(address.host, problem);
  if (!problem) {
    found.emplace_back(number, address.port);
    co_return found;
  }
  asio::ip::tcp::resolver resolver(home_.executor);
  const auto flags = asio::ip::resolver_base::passive | asio::ip::resolver_base::numeric_service;
  const std::string port = std::to_string(address.port);
  const auto entries = co_await resolver.async_resolve(
      address.host, port, flags, asio::redirect_error(asio::use_awaitable, problem));
  if (problem) co_return failure(Errc::invalid_argument, problem.message());
  for (const auto& entry : entries) found.push_back(entry.endpoint());
  co_return found;
}

Task<> Listeners::bind_tcp(const Address& address) {
  CO_TRY(const auto endpoints, co_await look_up(address));
  for (const asio::ip::tcp::endpoint& endpoint : endpoints) {
    Place place;
    std::memcpy(&place.bytes, endpoint.data(), endpoint.size());
    place.length = static_cast<socklen_t>(endpoint.size());
    CO_TRY(const int descriptor, bound_socket(place));
    Address real = address;
    real.host = endpoint.address().to_string();
    real.port = port_of(descriptor);
    listeners_.push_back(std::make_unique<Listener>(home_.executor, descriptor, std::move(real)));
  }
  co_return ok;
}

void Listeners::start() {
  for (const auto& listener : listeners_) {
    spawn(home_.executor, gate_.enter_anyway(), accept_on(*listener));
    home_.log.info("listening on " + printable(listener->address.text()));
  }
}

std::vector<Address> Listeners::addresses() const {
  std::vector<Address> result;
  for (const auto& listener : listeners_) result.push_back(listener->address);
  return result;
}

asio::awaitable<void> Listeners::accept_on(Listener& listener) {
  bool starved = false;
  while (!closed_) {
    asio::error_code problem;
    co_await listener.socket.async_wait(asio::posix::stream_descriptor::wait_read,
                                        asio::redirect_error(asio::use_awaitable, problem));
    if (closed_ || problem) co_return;
    int number = 0;
    if (accept_some(listener, number) == Burst::taken) {
      starved = false;
      continue;
    }
    if (!starved) {
      home_.log.warning(error_from_errno(number, "no new connections for a while").message);
    }
    starved = true;
    listener.pause = home_.clock.timer(pause_length);
    co_await listener.pause->wait();
  }
}

Listeners::Burst Listeners::accept_some(Listener& listener, int& number) {
  for (int i = 0; i < burst_max && !closed_; ++i) {
    const int descriptor =
        ::accept4(listener.socket.native_handle(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (descriptor >= 0) {
      auto stream = socket_stream(home_.executor, descriptor, peer_timeout_);
      if (stream) {
        accepted_(*std::move(stream));
      } else {
        home_.log.debug(stream.error().message);
      }
      continue;
    }
    number = errno;
    if (is_shortage(number)) return Burst::starved;
    if (number == EAGAIN) break;
    // else: the client has given up meanwhile, or its network has
  }
  return Burst::taken;
}

void Listeners::close() {
  closed_ = true;
  for (const auto& listener : listeners_) listener->close();
}

asio::awaitable<void> Listeners::stop() {
  close();
  co_await gate_.drained();
}

}  // namespace app
