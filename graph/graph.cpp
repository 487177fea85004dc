#include "graph/graph.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <utility>

namespace graph {
namespace {

constexpr std::size_t name_length_max = 31;

// G-2
bool is_node_name(std::string_view name) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  const auto inner = [&](char c) {
    return letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
  };
  return !name.empty() && name.size() <= name_length_max && letter(name.front()) &&
         std::ranges::all_of(name, inner);
}

constexpr std::array common_options{
    OptionSpec{"driver", Kind::text, "", "what kind of node this is"},
    OptionSpec{"read-only", Kind::boolean, "false", "never written"},
    OptionSpec{"auto-read-only", Kind::boolean, "false",
               "opened read-only, and again for writing while there is a writer"},
    OptionSpec{"force-share", Kind::boolean, "false",
               "take no locks; needs read-only"},
    OptionSpec{"discard", Kind::choice, "unmap", "what a discard does: nothing, or free the space",
               "unmap|ignore|on|off"},
    OptionSpec{"detect-zeroes", Kind::choice, "off",
               "turn writes of zeroes into write-zeroes; unmap also frees the space",
               "off|on|unmap"},
    OptionSpec{"cache.direct", Kind::boolean, "false", "bypass the page cache (O_DIRECT)"},
    OptionSpec{"cache.no-flush", Kind::boolean, "false",
               "never wait for the medium: unsafe when the host fails"},
};

Result<CommonOptions> common_of(const Options& options, const CommonOptions& inherited) {
  const OptionReader reader(options, common_options);
  CommonOptions common = inherited;
  if (reader.has("read-only")) common.read_only = reader.boolean("read-only");
  if (reader.has("auto-read-only")) common.auto_read_only = reader.boolean("auto-read-only");
  if (reader.has("force-share")) common.force_share = reader.boolean("force-share");
  if (reader.has("cache.no-flush")) common.no_flush = reader.boolean("cache.no-flush");
  const std::string discard = reader.text("discard");
  common.discard =
      discard == "ignore" || discard == "off" ? DiscardMode::ignore : DiscardMode::unmap;
  const std::string detect = reader.text("detect-zeroes");
  common.detect_zeroes = detect == "on"      ? DetectZeroes::on
                         : detect == "unmap" ? DetectZeroes::unmap
                                             : DetectZeroes::off;
  const auto refuse = [&](std::string_view key, std::string why) {
    return std::unexpected(
        at_position(reader.position(key), Error(Errc::invalid_argument, std::move(why))));
  };
  if (common.detect_zeroes == DetectZeroes::unmap && common.discard != DiscardMode::unmap) {
    return refuse("detect-zeroes", "detect-zeroes = \"unmap\" needs discard = \"unmap\"");
  }
  if (common.force_share && !common.read_only) {
    return refuse("force-share", "force-share = true needs read-only = true");
  }
  return common;
}

}  // namespace

std::span<const OptionSpec> common_node_options() { return common_options; }

OpenContext::OpenContext(Graph& graph, std::string node_name, const Options& options,
                         const Driver& driver, CommonOptions common)
    : graph_(graph),
      node_name_(std::move(node_name)),
      reader_(options, driver.options, common_options),
      common_(common) {}

Home& OpenContext::home() const { return graph_.home(); }

std::unexpected<Error> OpenContext::blame(std::string_view key, Error error) const {
  return std::unexpected(at_position(reader_.position(key), std::move(error)));
}

Task<Edge> OpenContext::attach(std::string_view key, Role role) {
  const OptionValue* value = reader_.options().find(key);
  if (value == nullptr) {
    co_return blame(key, Error(Errc::invalid_argument,
                               node_name_ + ": the key '" + std::string(key) + "' is missing"));
  }
  std::shared_ptr<Node> node;
  if (const Options* described = value->table()) {
    CommonOptions inherited;
    inherited.read_only = common_.read_only;
    inherited.auto_read_only = common_.auto_read_only;
    inherited.force_share = common_.force_share;
    inherited.no_flush = common_.no_flush;
    CO_TRY(node, co_await graph_.add("", *described, inherited));
  } else {
    node = graph_.find(*value->text());
    if (!node) {
      co_return blame(key, Error(Errc::invalid_argument,
                                 node_name_ + ": there is no node '" + *value->text() + "'"));
    }
  }
  Edge edge(std::string(key), role, std::move(node));
  edge.parent_ = this;
  Transaction reading(graph_);
  reading.set_access(edge, Access{Permission::consistent_read, Permissions::all()});
  Result<> done = co_await reading.commit();
  if (!done) co_return blame(key, std::move(done).error());
  co_return std::move(edge);
}

Graph::Graph(Home& home, std::span<const Driver* const> drivers)
    : home_(home), drivers_(drivers.begin(), drivers.end()) {}

Graph::~Graph() { assert(nodes_.empty()); }

const Driver* Graph::driver(std::string_view name) const {
  const auto found = std::ranges::find(drivers_, name, &Driver::name);
  return found == drivers_.end() ? nullptr : *found;
}

std::vector<std::string> Graph::driver_names() const {
  std::vector<std::string> names;
  for (const Driver* driver : drivers_) names.emplace_back(driver->name);
  return names;
}

Task<std::shared_ptr<Node>> Graph::add(std::string name, const Options& options,
                                       CommonOptions inherited) {
  const auto refuse = [&](const Position& where, std::string why) {
    return std::unexpected(at_position(where, Error(Errc::invalid_argument, std::move(why))));
  };
  const OptionValue* kind = options.find("driver");
  if (kind == nullptr) co_return refuse(options.position(), "the key 'driver' is missing");
  if (kind->text() == nullptr) co_return refuse(kind->position, "'driver': expected a string");
  const Driver* found = driver(*kind->text());
  if (found == nullptr) {
    std::string why = "there is no driver '" + *kind->text() + "'";
    const std::vector<std::string> known = driver_names();
    if (const auto near = nearest(*kind->text(), known)) why += ", did you mean '" + *near + "'?";
    co_return refuse(kind->position, std::move(why));
  }
  CO_CHECK(check_options(options, found->options, common_options));
  CO_TRY(const CommonOptions common, common_of(options, inherited));
  if (name.empty()) {
    std::string number = std::to_string(implicit_++);
    name = "#block" + std::string(number.size() < 3 ? 3 - number.size() : 0, '0') + number;
  } else if (!is_node_name(name)) {
    co_return refuse(options.position(),
                     "'" + name + "' is no node name: 1 to 31 of A-Z a-z 0-9 - . _, a letter first");
  }
  if (find(name)) co_return refuse(options.position(), "there is a node '" + name + "' already");

  OpenContext context(*this, name, options, *found, common);
  auto opened = co_await found->open(context);
  if (!opened) {
    (void)co_await reap();  // children that were opened for it
    co_return std::unexpected(std::move(opened).error());
  }
  auto placed = co_await place(std::move(name), *found, common, *std::move(opened));
  if (!placed) {
    (void)co_await reap();
    co_return std::unexpected(at_position(options.position(), std::move(placed).error()));
  }
  co_return *std::move(placed);
}

Task<std::shared_ptr<Node>> Graph::insert(std::string name, const Driver& driver,
                                          CommonOptions common, std::unique_ptr<Node> node) {
  if (!is_node_name(name)) co_return failure(Errc::invalid_argument, "'" + name + "' is no node name");
  if (find(name)) co_return failure(Errc::invalid_argument, "there is a node '" + name + "' already");
  co_return co_await place(std::move(name), driver, common, std::move(node));
}

Task<std::shared_ptr<Node>> Graph::place(std::string name, const Driver& driver,
                                         CommonOptions common, std::unique_ptr<Node> owned) {
  std::shared_ptr<Node> node(std::move(owned));
  node->name_ = std::move(name);
  node->driver_ = &driver;
  node->common_ = common;
  node->home_ = &home_;
  nodes_.emplace(node->name_, node);
  Transaction rights(*this);
  rights.refresh(*node);
  Result<> done = co_await rights.commit();
  if (!done) {
    (void)co_await close_node(node);
    co_return std::unexpected(std::move(done).error());
  }
  co_return std::move(node);
}

std::shared_ptr<Node> Graph::find(std::string_view name) const {
  const auto found = nodes_.find(name);
  return found == nodes_.end() ? nullptr : found->second;
}

Task<> Graph::remove(std::string_view name) {
  const std::shared_ptr<Node> node = find(name);
  if (!node || name.starts_with('#')) {
    co_return failure(Errc::invalid_argument, "there is no node '" + std::string(name) + "'");
  }
  if (!node->parents().empty()) {
    co_return failure(Errc::busy, "Node " + std::string(name) + " is in use");
  }
  Result<> closed = co_await close_node(node);
  Result<> reaped = co_await reap();
  co_return closed ? reaped : closed;
}

// The caller's reference is the last one; the node goes with it.
Task<> Graph::close_node(std::shared_ptr<Node> node) {
  nodes_.erase(node->name_);
  Result<> flushed = ok;
  if (!node->common().read_only) flushed = co_await node->flush_to_children();
  Result<> closed = co_await node->close();
  std::vector<Node*> below;
  const std::vector<Edge*> edges = node->children_;
  for (Edge* edge : edges) {
    if (edge->child_) below.push_back(&edge->node());
    edge->unlink();
    edge->adopt(nullptr);
    edge->child_ = nullptr;
  }
  Transaction rights(*this);
  for (Node* child : below) {
    if (std::ranges::any_of(nodes_, [&](auto& entry) { return entry.second.get() == child; })) {
      rights.refresh(*child);
    }
  }
  Result<> released = co_await rights.commit();
  if (!flushed) co_return flushed;
  co_return closed ? released : closed;
}

Task<> Graph::reap() {
  Result<> first = ok;
  for (bool found = true; found;) {
    found = false;
    for (const auto& [name, node] : nodes_) {
      if (!name.starts_with('#') || !node->parents().empty()) continue;
      Result<> closed = co_await close_node(node);
      if (!closed && first) first = std::move(closed);
      found = true;
      break;
    }
  }
  co_return first;
}

Task<std::unique_ptr<BlockBackend>> Graph::attach(std::shared_ptr<Node> node, ViewOptions options) {
  if (options.window && !options.window->lies_within(node->size())) {
    co_return failure(Errc::invalid_argument,
                      options.user + ": the window of " + std::to_string(options.window->length) +
                          " bytes at " + std::to_string(options.window->offset) +
                          " leaves node '" + node->name() + "' of " + std::to_string(node->size()));
  }
  assert(!options.window || options.policy == RangePolicy::fixed);
  const Access access = options.access;
  std::unique_ptr<BlockBackend> view(
      new BlockBackend(Edge("root", Role::window, node), std::move(options)));
  view->edge_.parent_ = view.get();
  Transaction rights(*this);
  rights.set_access(view->edge_, access);
  Result<> done = co_await rights.commit();
  if (!done) co_return std::unexpected(std::move(done).error());
  if (view->writable()) warn_if_growth_is_impossible(*node);
  co_return std::move(view);
}

Task<> Graph::detach(std::unique_ptr<BlockBackend> view) {
  co_await view->drain();
  Transaction rights(*this);
  Node& node = view->node();
  {
    const Edge last = std::move(view->edge_);
    rights.refresh(node);
  }
  view.reset();  // after its edge, which refers to it
  Result<> released = co_await rights.commit();
  Result<> reaped = co_await reap();
  co_return released ? reaped : released;
}

// Legal, and worth a word: the view's writer finds out with ENOSPC otherwise.
void Graph::warn_if_growth_is_impossible(const Node& node) const {
  for (const Edge* edge : node.children()) {
    const Node& child = edge->node();
    const bool grows = edge->role() == Role::image || edge->role() == Role::data ||
                       edge->role() == Role::metadata;
    if (grows && edge->may(Permission::resize) && !child.can_grow()) {
      home_.log.warning(node.name() + ": node '" + child.name() +
                        "' can't grow: write operations may fail with ENOSPC when the image file "
                        "needs to grow");
    } else if (!grows && edge->role() != Role::backing) {
      warn_if_growth_is_impossible(child);
    }
  }
}

Task<> Graph::insert_filter(std::shared_ptr<Node> filter, std::shared_ptr<Node> below) {
  Transaction change(*this);
  for (Edge* edge : below->parents()) {
    if (edge->parent() != filter.get()) change.replace_child(*edge, filter);
  }
  co_return co_await change.commit();
}

Task<> Graph::bypass_filter(std::shared_ptr<Node> filter) {
  assert(filter->is_filter() && filter->children().size() == 1);
  Transaction change(*this);
  for (Edge* edge : filter->parents()) {
    change.replace_child(*edge, filter->children().front()->shared_node());
  }
  co_return co_await change.commit();
}

Task<> Graph::close() {
  Result<> first = ok;
  const auto note = [&](Result<> result) {
    if (!result && first) first = std::move(result);
  };
  for (Node* node : nodes()) {
    assert(views_above(*node).empty());
    if (node->parents().empty()) note(co_await node->flushes().flush(*node, FlushDepth::disk));
  }
  while (!nodes_.empty()) {
    const auto top = std::ranges::find_if(
        nodes_, [](const auto& entry) { return entry.second->parents().empty(); });
    assert(top != nodes_.end());
    note(co_await close_node(top->second));
  }
  co_return first;
}

std::vector<Node*> Graph::nodes() const {
  std::vector<Node*> all;
  for (const auto& [name, node] : nodes_) all.push_back(node.get());
  return parents_first(all);
}

void Graph::refresh_limits() {
  const std::vector<Node*> order = nodes();
  for (auto node = order.rbegin(); node != order.rend(); ++node) (*node)->refresh_limits();
}

asio::awaitable<DrainedSection> DrainedSection::begin(Node& node) {
  DrainedSection section;
  section.views_ = views_above(node);
  for (BlockBackend* view : section.views_) co_await view->drain();
  co_return std::move(section);
}

void DrainedSection::end() {
  for (BlockBackend* view : views_) view->undrain();
  views_.clear();
}

}  // namespace graph
