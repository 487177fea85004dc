#include "nbd/server.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "nbd/connection.h"

namespace nbd {
namespace {

// Requests that were on their way when the server began to stop get their ESHUTDOWN within this
// time.
constexpr Clock::Duration grace = std::chrono::milliseconds(50);

Result<> check_text(std::string_view what, std::string_view text) {
  const auto refuse = [&](std::string_view why) {
    return failure(Errc::invalid_argument,
                   std::string(what) + " '" + printable(text) + "' " + std::string(why));
  };
  if (text.size() > string_length_max) return refuse("is longer than 4096 bytes");
  if (text.contains('\0')) return refuse("has a NUL in it");
  if (!is_utf8(text)) return refuse("is not UTF-8");
  return ok;
}

}  // namespace

Result<std::unique_ptr<Export>> Export::create(std::string name, std::string description,
                                               std::unique_ptr<graph::BlockBackend> view) {
  if (auto good = check_text("the export name", name); !good) {
    return std::unexpected(std::move(good).error());
  }
  if (auto good = check_text("the description", description); !good) {
    return std::unexpected(std::move(good).error());
  }
  return std::unique_ptr<Export>(
      new Export(std::move(name), std::move(description), std::move(view)));
}

Server::Server(Home& home, ServerOptions options) : home_(home), options_(options) {}

Server::~Server() { assert(connections_.empty()); }

Result<> Server::add(std::unique_ptr<Export> item) {
  const std::string name = item->name();
  if (!exports_.try_emplace(name, std::move(item)).second) {
    return failure(Errc::invalid_argument, "there is an export '" + printable(name) + "' already");
  }
  return ok;
}

Export* Server::find(std::string_view name) const {
  const auto found = exports_.find(name);
  return found == exports_.end() ? nullptr : found->second.get();
}

std::vector<Export*> Server::exports() const {
  std::vector<Export*> all;
  all.reserve(exports_.size());
  for (const auto& [name, item] : exports_) all.push_back(item.get());
  return all;
}

// Idle clients that never say what they want keep nobody out; those who were let in are not driven
// out.
bool Server::make_room() {
  std::size_t attached = 0;
  std::vector<Connection*> handshaking;  // in the order of their arrival
  for (Connection* connection : connections_) {
    if (connection->attached()) ++attached;
    if (connection->handshaking()) handshaking.push_back(connection);
  }
  const std::size_t open = attached + handshaking.size();
  if (open < options_.connections_max && handshaking.size() < options_.handshaking_max) return true;
  if (handshaking.empty()) return false;
  handshaking.front()->give_way();
  return true;
}

void Server::serve(std::unique_ptr<Stream> stream) {
  if (stopping_ || !make_room()) {
    home_.log.info("client " + stream->peer() + ": turned away, " +
                   (stopping_ ? "the server is stopping"
                              : std::to_string(connections_.size()) + " connections are open"));
    stream->close();
    return;
  }
  auto connection = std::make_unique<Connection>(std::move(stream), *this);
  connections_.push_back(connection.get());
  spawn(home_.executor, gate_.enter_anyway(), run(std::move(connection)));
}

asio::awaitable<void> Server::run(std::unique_ptr<Connection> connection) {
  co_await connection->run();
  std::erase(connections_, connection.get());
}

asio::awaitable<void> Server::stop() {
  stopping_ = true;
  const std::unique_ptr<Timer> short_time = home_.clock.timer(grace);
  if (!connections_.empty()) co_await short_time->wait();
  winding_up_ = true;
  const std::vector<Connection*> open = connections_;
  for (Connection* connection : open) connection->wind_up();

  const std::unique_ptr<Timer> limit = home_.clock.timer(options_.drain_timeout);
  spawn(home_.executor, helpers_.enter_anyway(), cut_off_at(*limit));
  co_await gate_.drained();
  limit->cancel();
  co_await helpers_.drained();
}

asio::awaitable<void> Server::cut_off_at(Timer& limit) {
  if (!co_await limit.wait()) co_return;
  const std::vector<Connection*> open = connections_;
  for (Connection* connection : open) connection->cut_off();
}

std::vector<std::unique_ptr<Export>> Server::release_exports() {
  assert(connections_.empty());
  std::vector<std::unique_ptr<Export>> all;
  for (auto& [name, item] : exports_) all.push_back(std::move(item));
  exports_.clear();
  return all;
}

}  // namespace nbd
