#include "src/cell.h"

#include <cassert>

#include "src/create.h"

namespace app {
namespace {

std::string user_of(const std::string& export_name) {
  return "export '" + printable(export_name) + "'";
}

}  // namespace

Cell::Cell(Home& home, Part part, nbd::ServerOptions options, Drivers drivers)
    : part_(std::move(part)), drivers_(drivers), graph_(home, drivers), server_(home, options) {}

Task<> Cell::open() {
  Result<> opened = co_await open_all();
  if (!opened) (void)co_await close();  // the first failure is what people need to hear of
  co_return opened;
}

Task<> Cell::open_all() {
  for (const NodeConfig* node : part_.nodes) {
    if (node->image) CO_CHECK(co_await make_missing_image(home(), drivers_, *node->image));
  }
  for (const NodeConfig* node : part_.nodes) {
    auto added = co_await graph_.add(node->name, *node->options);
    if (!added) co_return std::unexpected(std::move(added).error());
  }
  for (const ExportConfig* wanted : part_.exports) CO_CHECK(co_await add_export(*wanted));
  co_return co_await serve_snapshots();
}

namespace {

// Of what the export shows: the node, or one of its snapshots.
Result<std::uint64_t> size_shown(const graph::Node& node, const ExportConfig& wanted) {
  if (wanted.snapshot.empty()) return node.size();
  const std::vector<graph::Port> ports = node.ports();
  if (const graph::Port* port = graph::find_port(ports, wanted.snapshot)) return port->size;
  return std::unexpected(at_position(
      wanted.position, Error(Errc::invalid_argument, node.name() + ": there is no snapshot '" +
                                                         printable(wanted.snapshot) + "'")));
}

}  // namespace

Task<> Cell::add_export(const ExportConfig& wanted) {
  std::shared_ptr<graph::Node> node = graph_.find(wanted.node);
  assert(node && "read_config() refuses an export of an unknown node");
  graph::ViewOptions options(user_of(wanted.name));
  options.write_through = wanted.write_through;
  if (wanted.writable) {
    options.access.taken = graph::Permission::consistent_read | graph::Permission::write;
  }
  options.port = wanted.snapshot;
  if (wanted.offset != 0 || wanted.size) {
    CO_TRY(const std::uint64_t end, size_shown(*node, wanted));
    const std::uint64_t rest = end > wanted.offset ? end - wanted.offset : 0;
    const Range window{wanted.offset, wanted.size.value_or(rest)};
    if (!window.lies_within(end)) {
      co_return std::unexpected(at_position(
          wanted.window_position,
          Error(Errc::invalid_argument, options.user + ": " + std::to_string(window.length) +
                                            " bytes at " + std::to_string(window.offset) +
                                            " leave node '" + node->name() + "' of " +
                                            std::to_string(end) + " bytes")));
    }
    options.window = window;
  }
  co_return co_await add_view(wanted, wanted.name, wanted.description, std::move(options));
}

// An export called `name` of what `origin` serves.
Task<> Cell::add_view(const ExportConfig& origin, std::string name, std::string description,
                      graph::ViewOptions options) {
  const auto at_origin = [&](Error error) {
    return std::unexpected(at_position(origin.position, std::move(error)));
  };
  auto view = co_await graph_.attach(graph_.find(origin.node), std::move(options));
  if (!view) co_return at_origin(std::move(view).error());
  auto made = nbd::Export::create(std::move(name), std::move(description), *std::move(view));
  if (!made) co_return at_origin(std::move(made).error());
  Result<> added = server_.add(*std::move(made));
  if (!added) co_return at_origin(std::move(added).error());
  co_return ok;
}

Task<> Cell::leave_worker() {
  graph_.leave_worker();
  co_return ok;
}

Task<> Cell::enter_worker(Home& home) {
  server_.move_to(home);
  graph_.enter_worker(home);
  co_return ok;
}

Task<> Cell::close() {
  Result<> first = ok;
  const auto note = [&](Result<> done) {
    if (done) return;
    home().log.error(done.error().message);
    if (first) first = std::move(done);
  };
  co_await server_.stop();
  for (auto& item : server_.release_exports()) {
    note(co_await close_view(user_of(item->name()), item->release()));
  }
  note(co_await graph_.close());
  co_return first;
}

Task<> Cell::close_view(const std::string& user, std::unique_ptr<graph::BlockBackend> view) {
  Result<> flushed = ok;
  if (view->writable()) flushed = co_await view->flush();
  Result<> detached = co_await graph_.detach(std::move(view));
  if (!flushed) {
    Error error = std::move(flushed).error();
    error.message.insert(0, user + ": the last flush failed, data may be lost: ");
    co_return std::unexpected(std::move(error));
  }
  co_return detached;
}

}  // namespace app
