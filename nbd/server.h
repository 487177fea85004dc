// server.h - some exports and the connections to them, all on one worker: requests in, replies out.
#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "graph/base/gate.h"
#include "graph/base/home.h"
#include "graph/base/stream.h"
#include "nbd/budget.h"
#include "nbd/export.h"
#include "nbd/session.h"
#include "nbd/ticket.h"

namespace nbd {

class Connection;

struct ServerOptions {
  Clock::Duration drain_timeout = std::chrono::seconds(10);  // stop() cuts off who takes longer
  BudgetLimits in_flight;                                    // of each connection
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
  // Takes away an export that nobody uses, for detaching its view; nobody comes to it any more.
  // Null when there is none of that name, or somebody is connected to it.
  std::unique_ptr<Export> remove_idle(std::string_view name);
  // In the order of their names.
  std::vector<Export*> exports() const;

  // What a client may be told of the exports.
  Offers offers() const;

  // Serves a client that has agreed on `session` until it leaves, in a coroutine of its own. The
  // stream has come to this worker, see Stream::assign(). Closes it at once when there is no such
  // export any more.
  void attach(std::unique_ptr<Stream> stream, Session session, Ticket ticket);
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

  // To another worker, with all exports.
  // Requires: there is no connection, and nobody calls until this has returned.
  void move_to(Home& home);
  Home& home() const { return *home_; }
  const ServerOptions& options() const { return options_; }

 private:
  asio::awaitable<void> run(std::unique_ptr<Connection> connection);
  asio::awaitable<void> cut_off_at(Timer& limit);

  Home* home_;
  const ServerOptions options_;
  std::map<std::string, std::unique_ptr<Export>, std::less<>> exports_;
  std::vector<Connection*> connections_;
  Gate gate_;  // a pass for each connection
  Gate helpers_;
  bool stopping_ = false;
  bool winding_up_ = false;
};

}  // namespace nbd
