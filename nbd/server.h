// server.h - the exports of one worker and the connections to them: what src/ needs to know of this
// folder.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "graph/base/gate.h"
#include "graph/base/home.h"
#include "graph/base/stream.h"
#include "nbd/export.h"

namespace nbd {

class Connection;

// May a client ask for the names of all exports?
enum class Listing : std::uint8_t { allowed, forbidden };

struct ServerOptions {
  Clock::Duration handshake_timeout =
      std::chrono::seconds(10);  // from accept to the reply to GO; 0: none
  Clock::Duration drain_timeout = std::chrono::seconds(10);  // stop() cuts off who takes longer
  std::size_t connections_max = 100;
  // Of those, clients that have not agreed on an export yet: the oldest gives way to a new one
  // (statement 18).
  std::size_t handshaking_max = 32;
  Listing listing = Listing::allowed;
};

class Server {
 public:
  // Lifetime: `home` outlives the server.
  Server(Home& home, ServerOptions options);
  // Requires: stop() has returned, or nothing was ever served.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Errors: invalid_argument (the name is taken).
  Result<> add(std::unique_ptr<Export> item);
  // Null when there is none of that name.
  Export* find(std::string_view name) const;
  // In the order of their names.
  std::vector<Export*> exports() const;

  // Speaks with one client until it leaves, in a coroutine of its own. A client too many is turned
  // away.
  void serve(std::unique_ptr<Stream> stream);
  std::size_t connections() const { return connections_.size(); }

  // Statements 176, 177: no new clients; requests in flight end, further ones get ESHUTDOWN; then
  // the connections are closed, those that take longer than drain_timeout by force.
  asio::awaitable<void> stop();
  bool stopping() const { return stopping_; }
  // Past the moment in which requests on their way are still answered: who has nothing under way is
  // closed.
  bool winding_up() const { return winding_up_; }

  // Takes all exports away, for detaching their views.
  // Requires: stop() has returned.
  std::vector<std::unique_ptr<Export>> release_exports();

  Home& home() const { return home_; }
  const ServerOptions& options() const { return options_; }

 private:
  asio::awaitable<void> run(std::unique_ptr<Connection> connection);
  asio::awaitable<void> cut_off_at(Timer& limit);
  bool make_room();

  Home& home_;
  ServerOptions options_;
  std::map<std::string, std::unique_ptr<Export>, std::less<>> exports_;
  std::vector<Connection*> connections_;
  Gate gate_;  // a pass for each connection
  Gate helpers_;
  bool stopping_ = false;
  bool winding_up_ = false;
};

}  // namespace nbd
