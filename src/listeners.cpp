#include "src/listeners.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <asio/ip/tcp.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>
#include <cerrno>
#include <optional>

#include "src/bind.h"
#include "src/refusals.h"
#include "src/socket_stream.h"

namespace app {

// A listening socket, who may come through it, and the file that belongs to it when it is a Unix
// one that we made. Or a connection that was handed over: then nothing is accepted.
class Listener {
 public:
  Listener(Home& home, Descriptor descriptor, Address real, const Listen& wanted)
      : socket(home.executor, descriptor.release()),
        address(std::move(real)),
        configured(wanted.address),
        allow(wanted.allow),
        refusals(home.clock, home.log, printable(address.text())) {}
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
    refusals.sum_up();
  }

  asio::posix::stream_descriptor socket;
  Address address;     // where it really is
  Address configured;  // by which its allow list is found again
  std::optional<AllowList> allow;
  Refusals refusals;
  std::optional<std::pair<dev_t, ino_t>> file;
  std::unique_ptr<Timer> pause;  // while there are no descriptors left
};

namespace {

constexpr auto pause_length = std::chrono::milliseconds(100);
// Accepted in one go before others of this thread get their turn.
constexpr int burst_max = 32;

bool is_shortage(int number) {
  return number == EMFILE || number == ENFILE || number == ENOBUFS || number == ENOMEM;
}

Listen plain(std::string_view address) { return {*parse_address(address), {}}; }

}  // namespace

Listeners::Listeners(Home& home, std::chrono::seconds peer_timeout, Accepted accepted)
    : home_(home), peer_timeout_(peer_timeout), accepted_(std::move(accepted)) {}

Listeners::~Listeners() = default;

Task<> Listeners::open(std::vector<Listen> wanted, std::vector<InheritedSocket> inherited) {
  inherited_ = std::move(inherited);
  if (wanted.empty()) wanted.push_back(plain(inherited_.empty() ? default_listen : "systemd"));
  for (const Listen& listen : wanted) {
    Result<> opened = co_await open_one(listen);
    if (!opened) {
      close();
      Error error = std::move(opened).error();
      error.message.insert(0, "cannot listen on " + printable(listen.address.text()) + ": ");
      co_return std::unexpected(at_position(listen.position, std::move(error)));
    }
  }
  if (!inherited_.empty()) {
    home_.log.warning("'listen' does not name all sockets of the service manager: " +
                      std::to_string(inherited_.size()) + " not used");
    inherited_.clear();
  }
  co_return ok;
}

Task<> Listeners::open_one(const Listen& wanted) {
  switch (wanted.address.family) {
    case Address::Family::tcp:
      co_return co_await open_tcp(wanted);
    case Address::Family::local: {
      CO_TRY(Descriptor socket, co_await bind_local(home_.clock, wanted.address.path, wanted.file));
      add(std::move(socket), wanted.address, wanted);
      listeners_.back()->remember_file();
      break;
    }
    case Address::Family::vsock: {
      CO_TRY(Descriptor socket, bind_vsock(wanted.address));
      Address real = local_address_of(socket.get());
      add(std::move(socket), std::move(real), wanted);
      break;
    }
    case Address::Family::inherited:
      co_return take_inherited(wanted);
  }
  co_return ok;
}

// A name may stand for several addresses: all of them are listened on.
Task<std::vector<asio::ip::tcp::endpoint>> Listeners::look_up(const Address& address) {
  std::vector<asio::ip::tcp::endpoint> found;
  asio::error_code problem;
  const auto number = asio::ip::make_address(address.host, problem);
  if (!problem) {
    found.emplace_back(number, static_cast<std::uint16_t>(address.port));
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

Task<> Listeners::open_tcp(const Listen& wanted) {
  CO_TRY(const auto endpoints, co_await look_up(wanted.address));
  for (const asio::ip::tcp::endpoint& endpoint : endpoints) {
    CO_TRY(Descriptor socket, bind_tcp(endpoint));
    Address real = local_address_of(socket.get());
    add(std::move(socket), std::move(real), wanted);
  }
  co_return ok;
}

Result<> Listeners::take_inherited(const Listen& wanted) {
  const std::string& name = wanted.address.name;
  std::vector<InheritedSocket> rest;
  std::size_t taken = 0;
  for (InheritedSocket& item : inherited_) {
    if (!name.empty() && item.name != name) {
      rest.push_back(std::move(item));
      continue;
    }
    ++taken;
    Address real = local_address_of(item.descriptor.get());
    if (item.state == InheritedSocket::State::connected) {
      handed_over_.push_back(
          std::make_unique<Listener>(home_, std::move(item.descriptor), std::move(real), wanted));
    } else {
      add(std::move(item.descriptor), std::move(real), wanted);
    }
  }
  inherited_ = std::move(rest);
  if (taken > 0) return ok;
  return failure(
      Errc::invalid_argument,
      name.empty()
          ? "systemd has handed over no socket (LISTEN_FDS); is there a socket unit?"
          : "systemd has handed over no socket with FileDescriptorName=" + printable(name));
}

void Listeners::add(Descriptor socket, Address real, const Listen& wanted) {
  listeners_.push_back(
      std::make_unique<Listener>(home_, std::move(socket), std::move(real), wanted));
}

void Listeners::start() {
  for (const auto& listener : listeners_) {
    spawn(home_.executor, gate_.enter_anyway(), accept_on(*listener));
    home_.log.info("listening on " + printable(listener->address.text()));
  }
  for (const auto& connection : handed_over_) {
    accept(*connection, Descriptor(connection->socket.release()));
  }
}

std::vector<Address> Listeners::addresses() const {
  std::vector<Address> result;
  for (const auto& listener : listeners_) result.push_back(listener->address);
  return result;
}

void Listeners::set_allow(const std::vector<Listen>& wanted) {
  for (const auto& listener : listeners_) {
    const auto now =
        std::ranges::find(wanted, listener->configured,
                          [](const Listen& item) -> const Address& { return item.address; });
    if (now != wanted.end()) listener->allow = now->allow;
  }
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
    Descriptor socket(
        ::accept4(listener.socket.native_handle(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (socket.open()) {
      accept(listener, std::move(socket));
      continue;
    }
    number = errno;
    if (is_shortage(number)) return Burst::starved;
    if (number == EAGAIN) break;
    // else: the client has given up meanwhile, or its network has
  }
  return Burst::taken;
}

// Who is not allowed hears nothing, not even the greeting.
void Listeners::accept(Listener& listener, Descriptor socket) {
  if (listener.allow) {
    const Peer peer = peer_of(socket.get());
    if (!listener.allow->admits(peer)) {
      listener.refusals.note(peer);
      return;
    }
  }
  auto stream = socket_stream(home_.executor, socket.release(), peer_timeout_);
  if (stream) {
    accepted_(*std::move(stream));
  } else {
    home_.log.debug(stream.error().message);
  }
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
