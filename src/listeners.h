// listeners.h - the sockets that clients connect to: bound all together or not at all, then each
// accepts in a coroutine of its own.
#pragma once

#include <asio/ip/tcp.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "graph/base/home.h"
#include "graph/base/stream.h"
#include "src/listen_config.h"
#include "src/service_manager.h"

namespace app {

class Listener;

class Listeners {
 public:
  using Accepted = std::function<void(std::unique_ptr<Stream>)>;

  // Lifetime: `home` outlives the listeners. For `peer_timeout` see socket_stream().
  Listeners(Home& home, std::chrono::seconds peer_timeout, Accepted accepted);
  // Requires: stop() has returned, or start() was never called.
  ~Listeners();
  Listeners(const Listeners&) = delete;
  Listeners& operator=(const Listeners&) = delete;

  // Binds all of `wanted`, or takes those that were handed over. With nothing wanted: all that were
  // handed over, or else default_listen. A Unix socket's file that nobody answers behind is
  // replaced.
  // Errors: "cannot listen on tcp:127.0.0.1:10809: Address already in use", with the position;
  // nothing stays bound.
  Task<> open(std::vector<Listen> wanted, std::vector<InheritedSocket> inherited);
  // Accepts from now on. Connections that were handed over are accepted here.
  void start();
  // Where they really listen: with the port that the system picked. None, when only connections
  // were handed over: then nobody else will come.
  std::vector<Address> addresses() const;
  // Takes the allow lists of `wanted` for those that listen already; who is connected stays.
  void set_allow(const std::vector<Listen>& wanted);
  // Takes the sockets' files away and accepts nobody any more. May be called twice.
  void close();
  asio::awaitable<void> stop();

 private:
  Task<> open_one(const Listen& wanted);
  Task<> open_tcp(const Listen& wanted);
  Task<std::vector<asio::ip::tcp::endpoint>> look_up(const Address& address);
  Result<> take_inherited(const Listen& wanted);
  void add(Descriptor socket, Address real, const Listen& wanted);
  asio::awaitable<void> accept_on(Listener& listener);
  enum class Burst : std::uint8_t { taken, starved };
  Burst accept_some(Listener& listener, int& number);
  void accept(Listener& listener, Descriptor socket);

  Home& home_;
  const std::chrono::seconds peer_timeout_;
  Accepted accepted_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::vector<std::unique_ptr<Listener>> handed_over_;  // connected, not listening
  std::vector<InheritedSocket> inherited_;              // those that nobody has taken yet
  Gate gate_;                                           // a pass for each accepting coroutine
  bool closed_ = false;
};

}  // namespace app
