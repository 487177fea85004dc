#include "graph/graph.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <utility>

namespace graph {
namespace {

constexpr std::array common_options{
    OptionSpec{"driver", Kind::text, "", "what kind of node this is"},
    OptionSpec{"read-only", Kind::boolean, "false", "never written"},
    OptionSpec{"auto-read-only", Kind::boolean, "false",
               "opened read-only, and again for writing while there is a writer"},
    OptionSpec{"force-share", Kind::boolean, "false", "take no locks; needs read-only"},
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
  common.direct = reader.boolean("cache.direct");
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

// G-1
Result<> check_children(const Node& node) {
  const auto children_as = [&](Role role) {
    return std::ranges::count(node.children(), role, &Edge::role);
  };
  const auto filtered = children_as(Role::filtered);
  const auto backing = children_as(Role::backing);
  std::string wrong;
  if (node.is_filter() && filtered != 1) wrong = "a filter has one filtered child";
  if (node.is_filter() && backing != 0) wrong = "a filter has no backing child";
  if (!node.is_filter() && filtered != 0) wrong = "only a filter has a filtered child";
  if (backing > 1) wrong = "a node has one backing child at most";
  return wrong.empty() ? ok : failure(Errc::invalid_argument, node.name() + ": " + wrong);
}

}  // namespace

std::span<const OptionSpec> common_node_options() { return common_options; }

OpenContext::OpenContext(Graph& graph, std::string node_name, const Options& options,
                         const Driver& driver, CommonOptions common)
    : graph_(graph),
      node_name_(std::move(node_name)),
      driver_name_(driver.name),
      reader_(options, driver.options, common_options),
      common_(common) {}

Home& OpenContext::home() const { return graph_.home(); }

std::unexpected<Error> OpenContext::blame(std::string_view key, Error error) const {
  return std::unexpected(at_position(reader_.position(key), std::move(error)));
}

CommonOptions OpenContext::inherited() const {
  CommonOptions inherited;
  inherited.read_only = common_.read_only;
  inherited.auto_read_only = common_.auto_read_only;
  inherited.force_share = common_.force_share;
  inherited.no_flush = common_.no_flush;
  inherited.layers_above = common_.layers_above;
  return inherited;
}

Task<Edge> OpenContext::attach(std::string_view key, Role role) {
  const OptionValue* value = reader_.options().find(key);
  if (value == nullptr) {
    co_return blame(key, Error(Errc::invalid_argument,
                               node_name_ + ": the key '" + std::string(key) + "' is missing"));
  }
  std::shared_ptr<Node> node;
  if (const Options* described = value->table()) {
    CO_TRY(node, co_await graph_.add("", *described, inherited()));
  } else {
    node = graph_.find(*value->text());
    if (!node) {
      co_return blame(key, Error(Errc::invalid_argument,
                                 node_name_ + ": there is no node '" + *value->text() + "'"));
    }
  }
  co_return co_await hold(key, role, std::move(node));
}

Task<Edge> OpenContext::attach_described(std::string_view key, Role role,
                                         const Options& described) {
  CommonOptions common = inherited();
  if (role == Role::backing) {
    common.read_only = true;
    common.layers_above = common_.layers_above + 1;
  }
  CO_TRY(std::shared_ptr<Node> node, co_await graph_.add("", described, common));
  co_return co_await hold(key, role, std::move(node));
}

Task<> OpenContext::take(Edge& edge, Access access) {
  Transaction rights(graph_);
  rights.set_access(edge, access);
  co_return co_await rights.commit();
}

Task<Edge> OpenContext::hold(std::string_view key, Role role, std::shared_ptr<Node> node) {
  attached_.push_back(node);
  Edge edge(std::string(key), role, std::move(node));
  edge.parent_ = this;
  Transaction reading(graph_);
  reading.set_access(edge, Access{Permission::consistent_read, Permissions::all()});
  Result<> done = co_await reading.commit();
  if (!done) co_return blame(key, std::move(done).error());
  co_return std::move(edge);
}

Graph::Graph(Home& home, std::span<const Driver* const> drivers)
    : home_(&home), drivers_(drivers.begin(), drivers.end()) {}

void Graph::leave_worker() {
  assert(turns_taken_ == turns_ended_);
  for (const auto& [name, node] : nodes_) node->leave_worker();
}

void Graph::enter_worker(Home& home) {
  home_ = &home;
  for (const auto& [name, node] : nodes_) {
    node->home_ = home_;
    node->enter_worker();
  }
}

Graph::~Graph() { assert(nodes_.empty()); }

Turn::~Turn() {
  if (graph_ == nullptr) return;
  ++graph_->turns_ended_;
  graph_->turn_changed_.notify_all();
}

asio::awaitable<Turn> Graph::turn() {
  const std::uint64_t mine = turns_taken_++;
  while (turns_ended_ != mine) co_await turn_changed_.wait();
  co_return Turn(*this);
}

const Driver* Graph::driver(std::string_view name) const {
  const auto found = std::ranges::find(drivers_, name, &Driver::name);
  return found == drivers_.end() ? nullptr : *found;
}

std::vector<std::string> Graph::driver_names() const {
  std::vector<std::string> names;
  for (const Driver* driver : drivers_) names.emplace_back(driver->name);
  return names;
}

std::string Graph::implicit_name() {
  const std::string number = std::to_string(implicit_++);
  return "#block" + std::string(number.size() < 3 ? 3 - number.size() : 0, '0') + number;
}

Task<std::shared_ptr<Node>> Graph::add(std::string name, const Options& options,
                                       CommonOptions inherited) {
  CO_TRY(const Driver* found, check_node(name, options, drivers_));
  CO_TRY(const CommonOptions common, common_of(options, inherited));
  if (name.empty()) {
    name = implicit_name();
  }
  if (find(name)) {
    co_return std::unexpected(
        at_position(options.position(),
                    Error(Errc::invalid_argument, "there is a node '" + name + "' already")));
  }

  OpenContext context(*this, name, options, *found, common);
  auto opened = co_await found->open(context);
  if (!opened) {
    (void)co_await give_up(context);
    co_return std::unexpected(std::move(opened).error());
  }
  auto placed = co_await place(std::move(name), *found, common, *std::move(opened));
  if (!placed) {
    (void)co_await give_up(context);
    co_return std::unexpected(at_position(options.position(), std::move(placed).error()));
  }
  co_return *std::move(placed);
}

// Nobody reads from the children any more; those that were opened for this go.
Task<> Graph::give_up(OpenContext& context) {
  Transaction rights(*this);
  for (const auto& child : context.attached_) {
    if (find(child->name()) == child) rights.refresh(*child);
  }
  Result<> released = co_await rights.commit();
  context.attached_.clear();
  Result<> reaped = co_await reap();
  co_return released ? reaped : released;
}

Task<std::shared_ptr<Node>> Graph::insert(std::string name, const Driver& driver,
                                          CommonOptions common, std::unique_ptr<Node> node) {
  if (!is_node_name(name))
    co_return failure(Errc::invalid_argument, "'" + name + "' is no node name");
  if (find(name))
    co_return failure(Errc::invalid_argument, "there is a node '" + name + "' already");
  co_return co_await place(std::move(name), driver, common, std::move(node));
}

Task<std::shared_ptr<Node>> Graph::place(std::string name, const Driver& driver,
                                         CommonOptions common, std::unique_ptr<Node> owned) {
  std::shared_ptr<Node> node(std::move(owned));
  node->name_ = std::move(name);
  node->driver_ = &driver;
  node->common_ = common;
  node->home_ = home_;
  Result<> done = check_children(*node);
  if (done && !nodes_.emplace(node->name_, node).second) {  // while this one was being opened
    done = failure(Errc::invalid_argument, "there is a node '" + node->name_ + "' already");
  }
  if (done) {
    Transaction rights(*this);
    rights.refresh(*node);
    done = co_await rights.commit();
  }
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

// Gone from the graph at once, closed, then without rights on its children, then without children.
Task<> Graph::close_node(std::shared_ptr<Node> node) {
  if (find(node->name_) == node) nodes_.erase(node->name_);
  Result<> flushed = ok;
  if (!node->common().read_only) flushed = co_await node->flush_to_children();
  Result<> closed = co_await node->close();

  const Turn turn = co_await this->turn();
  Transaction rights(*this);
  const std::vector<Edge*> edges = node->children_;
  for (Edge* edge : edges)
    rights.set_access(*edge, Access{Permissions::none(), Permissions::all()});
  Result<> released = co_await rights.commit(turn);
  std::vector<std::shared_ptr<Node>> below;
  for (Edge* edge : edges) {
    below.push_back(edge->child_);
    edge->unlink();
    edge->adopt(nullptr);
    edge->child_ = nullptr;
  }
  if (!released) {  // a child did not want to lose it, and has lost it
    Transaction rest(*this);
    for (const auto& child : below) rest.refresh(*child);
    (void)co_await rest.commit(turn);
  }
  if (!flushed) co_return flushed;
  co_return closed ? released : closed;
}

Task<> Graph::reap() {
  Result<> first = ok;
  for (bool found = true; found;) {
    found = false;
    for (const auto& [name, node] : nodes_) {
      if (!name.starts_with('#') || !node->parents().empty() || node.use_count() > 1) continue;
      Result<> closed = co_await close_node(node);
      if (!closed && first) first = std::move(closed);
      found = true;
      break;
    }
  }
  co_return first;
}

// Children first: a parent's size follows from theirs.
Task<> Graph::reread_sizes(std::shared_ptr<Node> node) {
  std::vector<std::shared_ptr<Node>> below;
  for (const Edge* edge : node->children()) below.push_back(edge->shared_node());
  for (const auto& child : below) CO_CHECK(co_await reread_sizes(child));
  co_return co_await node->reread_size();
}

// A port is a node of its own, which lives as long as somebody looks at it.
Task<std::shared_ptr<Node>> Graph::open_port(std::shared_ptr<Node> node, std::string wanted) {
  Edge self("port", Role::window, node);
  CO_TRY(std::unique_ptr<Node> shown, co_await node->open_port(std::move(wanted), std::move(self)));
  CommonOptions common;
  common.read_only = true;
  co_return co_await place(implicit_name(), node->driver(), common, std::move(shown));
}

Task<std::unique_ptr<BlockBackend>> Graph::attach(std::shared_ptr<Node> node, ViewOptions options) {
  if (options.port.empty()) co_return co_await attach_to(std::move(node), std::move(options));
  CO_TRY(std::shared_ptr<Node> port, co_await open_port(std::move(node), options.port));
  auto view = co_await attach_to(std::move(port), std::move(options));
  if (!view) (void)co_await reap();
  co_return view;
}

Task<std::unique_ptr<BlockBackend>> Graph::attach_to(std::shared_ptr<Node> node,
                                                     ViewOptions options) {
  CO_CHECK(co_await reread_sizes(node));
  if (options.window && !options.window->lies_within(node->size())) {
    co_return failure(Errc::invalid_argument,
                      options.user + ": the window of " + std::to_string(options.window->length) +
                          " bytes at " + std::to_string(options.window->offset) + " leaves node '" +
                          node->name() + "' of " + std::to_string(node->size()));
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
  Result<> released = co_await release(std::move(view));
  Result<> reaped = co_await reap();
  co_return released ? reaped : released;
}

Task<> Graph::release(std::unique_ptr<BlockBackend> view) {
  const Turn turn = co_await this->turn();
  const std::shared_ptr<Node> node = view->edge_.shared_node();
  Transaction rights(*this);
  rights.set_access(view->edge_, Access{Permissions::none(), Permissions::all()});
  Result<> released = co_await rights.commit(turn);
  view->gate_->shut();
  view.reset();
  if (!released) {  // the node did not want to lose it, and has lost it
    Transaction rest(*this);
    rest.refresh(*node);
    (void)co_await rest.commit(turn);
  }
  co_return released;
}

// Legal, and worth a word: the view's writer finds out with ENOSPC otherwise.
void Graph::warn_if_growth_is_impossible(Node& node) {
  for (const Edge* edge : node.children()) {
    Node& child = edge->node();
    const bool grows =
        edge->role() == Role::image || edge->role() == Role::data || edge->role() == Role::metadata;
    if (grows && edge->may(Permission::resize) && !child.can_grow()) {
      if (std::exchange(node.warned_of_growth_, true)) continue;
      home_->log.warning(node.name() + ": node '" + child.name() +
                         "' can't grow: write operations may fail with ENOSPC when the image file "
                         "needs to grow");
    } else if (!grows && edge->role() != Role::backing) {
      warn_if_growth_is_impossible(child);
    }
  }
}

Task<> Graph::insert_filter(std::shared_ptr<Node> filter, std::shared_ptr<Node> below) {
  const Turn turn = co_await this->turn();
  Transaction change(*this);
  for (Edge* edge : below->parents()) {
    if (edge->parent() != filter.get()) change.replace_child(*edge, filter);
  }
  co_return co_await change.commit(turn);
}

Task<> Graph::bypass_filter(std::shared_ptr<Node> filter) {
  assert(filter->is_filter());
  const Turn turn = co_await this->turn();
  const auto shown = std::ranges::find(filter->children(), Role::filtered, &Edge::role);
  Transaction change(*this);
  for (Edge* edge : filter->parents()) change.replace_child(*edge, (*shown)->shared_node());
  co_return co_await change.commit(turn);
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

void Graph::refresh() {
  const std::vector<Node*> order = nodes();
  for (auto node = order.rbegin(); node != order.rend(); ++node) {
    (*node)->refresh_limits();
    (*node)->refresh_size();
  }
}

void Quiet::cover(Node& node) {
  for (BlockBackend* view : views_above(node)) {
    if (std::ranges::find(gates, view->gate_) != gates.end()) continue;
    view->gate_->close();
    gates.push_back(view->gate_);
  }
}

asio::awaitable<DrainedSection> DrainedSection::begin(Node& node) {
  return begin(std::vector<Node*>{&node});
}

asio::awaitable<DrainedSection> DrainedSection::begin(std::vector<Node*> nodes) {
  DrainedSection section;
  const auto quiet = section.quiet_ = std::make_shared<Quiet>();
  for (Node* node : nodes) {
    node->quiets_.push_back(quiet);
    quiet->cover(*node);
  }
  // all are closed before the first is waited for; more may come meanwhile
  for (std::size_t i = 0; i < quiet->gates.size(); ++i) {
    const std::shared_ptr<Gate> gate = quiet->gates[i];
    co_await gate->drained();
  }
  co_return std::move(section);
}

void DrainedSection::end() {
  if (!quiet_) return;
  for (const auto& gate : quiet_->gates) gate->open();
  quiet_.reset();
}

void DrainedSection::cover_new_views(const Graph& graph) {
  for (Node* node : graph.nodes()) {
    std::erase_if(node->quiets_, [](const auto& quiet) { return quiet.expired(); });
    for (const auto& held : node->quiets_) {
      if (const auto quiet = held.lock()) quiet->cover(*node);
    }
  }
}

}  // namespace graph
