#include "nbd/server.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "nbd/connection.h"

namespace nbd {
namespace {

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

Offer Export::offer() const {
  Offer offer;
  offer.name = name_;
  offer.description = description_;
  if (!view_) return offer;
  offer.size = view_->size();
  offer.writable = view_->writable();
  offer.alignment = view_->alignment();
  offer.preferred = view_->edge().limits().preferred;
  return offer;
}

Server::Server(Home& home, ServerOptions options) : home_(&home), options_(options) {}

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

std::unique_ptr<Export> Server::remove_idle(std::string_view name) {
  const auto found = exports_.find(name);
  if (found == exports_.end()) return nullptr;
  const auto uses_it = [&](const Connection* connection) {
    return &connection->served() == found->second.get();
  };
  if (std::ranges::any_of(connections_, uses_it)) return nullptr;
  std::unique_ptr<Export> item = std::move(found->second);
  exports_.erase(found);
  return item;
}

std::vector<Export*> Server::exports() const {
  std::vector<Export*> all;
  all.reserve(exports_.size());
  for (const auto& [name, item] : exports_) all.push_back(item.get());
  return all;
}

Offers Server::offers() const {
  Offers all;
  for (const auto& [name, item] : exports_) {
    all.emplace(name, std::make_shared<const Offer>(item->offer()));
  }
  return all;
}

void Server::attach(std::unique_ptr<Stream> stream, Session session, Ticket ticket) {
  session.item = find(session.offer->name);
  if (session.item == nullptr || winding_up_) {
    const std::string peer = stream->peer();
    const std::string& name = session.offer->name;
    home_->log.info("client " + peer + ": export '" + printable(name) + "' is gone",
                    {.connection = peer, .export_name = name});
    stream->close();
    return;
  }
  auto connection =
      std::make_unique<Connection>(std::move(stream), std::move(session), std::move(ticket), *this);
  connections_.push_back(connection.get());
  spawn(home_->executor, gate_.enter_anyway(), run(std::move(connection)));
}

asio::awaitable<void> Server::run(std::unique_ptr<Connection> connection) {
  co_await connection->run();
  std::erase(connections_, connection.get());
}

void Server::move_to(Home& home) {
  assert(connections_.empty() && !stopping_);
  home_ = &home;
}

asio::awaitable<void> Server::stop() {
  stopping_ = true;
  const std::unique_ptr<Timer> short_time = home_->clock.timer(stop_grace);
  if (!connections_.empty()) co_await short_time->wait();
  winding_up_ = true;
  const std::vector<Connection*> open = connections_;
  for (Connection* connection : open) connection->close_if_done();

  const std::unique_ptr<Timer> limit = home_->clock.timer(options_.drain_timeout);
  spawn(home_->executor, helpers_.enter_anyway(), cut_off_at(*limit));
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
