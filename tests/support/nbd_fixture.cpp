#include "tests/support/nbd_fixture.h"

#include <algorithm>
#include <array>

#include "graph/protocol/protocol.h"

namespace test {
namespace {

constexpr std::array probe_options{
    OptionSpec{"file", Kind::node, "", "what it shows"},
};

Task<std::unique_ptr<graph::Node>> open_probe(graph::OpenContext& context) {
  CO_TRY(graph::Edge file, co_await context.attach("file", graph::Role::filtered));
  co_return std::make_unique<Probe>(std::move(file));
}

const graph::Driver probe_driver{"probe", "writes down what it is asked", probe_options,
                                 open_probe};
constexpr std::array drivers{&graph::memory_driver, &graph::null_co_driver, &probe_driver};

std::string text_of(std::string_view what, Range range) {
  return std::string(what) + " " + std::to_string(range.offset) + "+" +
         std::to_string(range.length);
}

OptionValue text_value(std::string text) {
  OptionValue value;
  value.data = std::move(text);
  return value;
}

asio::awaitable<void> stop(nbd::Lobby& lobby, nbd::Server& server, bool& stopped) {
  co_await lobby.stop();
  co_await server.stop();
  stopped = true;
}

}  // namespace

std::size_t Probe::count(std::string_view beginning) const {
  return static_cast<std::size_t>(std::ranges::count_if(
      calls, [&](const std::string& call) { return call.starts_with(beginning); }));
}

void Probe::release() {
  held.clear();
  released_.notify_all();
}

Task<> Probe::call(std::string text) {
  calls.push_back(text);
  const auto is_held = [&] {
    return std::ranges::any_of(held, [&](const std::string& one) { return text.starts_with(one); });
  };
  ++waiting_;
  while (is_held()) co_await released_.wait();
  --waiting_;
  for (const auto& [beginning, code] : failing) {
    if (text.starts_with(beginning)) {
      co_return std::unexpected(fault(code, 0, "was told to fail"));
    }
  }
  co_return ok;
}

Task<> Probe::read(std::uint64_t offset, const Buffers& out) {
  const Range range{offset, out.size()};
  Result<> called = co_await call(text_of("read", range));
  if (!called) co_return std::unexpected(std::move(called).error().at(offset));
  if (bad && bad->overlaps(range)) {
    const std::uint64_t at = std::max(bad->offset, offset);
    const Buffers good = out.slice(0, at - offset);
    if (at > offset) CO_CHECK(co_await Filter::read(offset, good));
    co_return std::unexpected(fault(Errc::io_error, at, "the medium is bad here"));
  }
  co_return co_await Filter::read(offset, out);
}

Task<> Probe::write(std::uint64_t offset, const ConstBuffers& data, graph::WriteFlags flags) {
  CO_CHECK(co_await call(text_of("write", {offset, data.size()})));
  co_return co_await Filter::write(offset, data, flags);
}

Task<> Probe::write_zeroes(Range range, graph::ZeroFlags flags) {
  std::string text = text_of("zeroes", range);
  if (flags.may_unmap) text += " unmap";
  if (flags.no_fallback) text += " fast";
  CO_CHECK(co_await call(std::move(text)));
  co_return co_await Filter::write_zeroes(range, flags);
}

Task<> Probe::discard(Range range) {
  CO_CHECK(co_await call(text_of("discard", range)));
  co_return co_await Filter::discard(range);
}

Task<> Probe::flush_to_disk() { return call("flush"); }

Task<> Probe::prefetch(Range range) {
  CO_CHECK(co_await call(text_of("prefetch", range)));
  co_return co_await Filter::prefetch(range);
}

Task<graph::Extents> Probe::map(Range range, graph::MapDepth depth) {
  CO_CHECK(co_await call(text_of("map", range)));
  if (!extents) co_return co_await Filter::map(range, depth);
  graph::Extents answer;
  std::uint64_t at = 0;
  for (graph::Extent extent : *extents) {
    const std::uint64_t start = std::max(at, range.offset);
    const std::uint64_t end = std::min(at + extent.length, range.end());
    at += extent.length;
    if (start >= end) continue;
    extent.length = end - start;
    extent.offset = start;
    extent.settled = true;
    answer.list.push_back(extent);
  }
  co_return std::move(answer);
}

graph::Limits Probe::own_limits() const {
  graph::Limits limits = Filter::own_limits();
  limits.request_alignment = alignment;
  limits.preferred = preferred;
  limits.native_fua = false;  // so that durability is seen as a flush
  limits.native_zeroes = quick_zeroes;
  return limits;
}

NbdHost::NbdHost(HostOptions options)
    : world(options.seed),
      memory(options.memory),
      branch(memory, world.home.executor),
      graph(world.home, drivers),
      server(world.home, options.server),
      lobby(world.home, options.lobby,
            [this](std::unique_ptr<Stream> stream, nbd::Session session, nbd::Ticket ticket) {
              server.attach(std::move(stream), std::move(session), std::move(ticket));
            }),
      options_(options) {
  if (options.memory > 0) world.home.memory = &branch;
  for (const std::string& name : options_.exports) {
    const bool large = name == "disk";
    Probe& probe =
        serve(name, large ? disk_size : small_size, name != "ro", large ? "a large disk" : "");
    if (name == "block512") probe.alignment = 512;
    if (name == "block4096") probe.alignment = 4096;
    if (name == "broken") probe.bad = Range{512 * KiB, 64 * KiB};
  }
  take_effect();
}

NbdHost::~NbdHost() {
  for (const auto& [name, probe] : probes_) probe->release();
  for (const auto& client : clients) client->leaves();
  begin_stop();
  world.scheduler.run();
  EXPECT_TRUE(stopped_) << "the server does not stop";
  EXPECT_TRUE(nobody_is_left());
  for (auto& item : server.release_exports()) {
    auto view = item->release();
    if (!view) continue;
    const Result<> detached = world.run(graph.detach(std::move(view)));
    EXPECT_TRUE(detached);
  }
  const Result<> closed = world.run(graph.close());
  (void)closed;  // nodes may have been told to fail
}

Probe& NbdHost::serve(std::string name, std::uint64_t size, bool writable,
                      std::string description) {
  const std::string node_name = name.empty() ? "default" : name;
  Options bytes;
  bytes.set("driver", text_value("memory"));
  bytes.set("size", text_value(std::to_string(size)));
  const auto below = world.run(graph.add(node_name + "-memory", bytes));
  Options probing;
  probing.set("driver", text_value("probe"));
  probing.set("file", text_value(node_name + "-memory"));
  const auto node = world.run(graph.add(node_name, probing));
  EXPECT_TRUE(below && node);

  graph::ViewOptions options("export '" + name + "'");
  if (writable) {
    options.access.taken = graph::Permission::consistent_read | graph::Permission::write;
  }
  auto view = world.run(graph.attach(*node, std::move(options)));
  EXPECT_TRUE(view);
  auto item = nbd::Export::create(std::move(name), std::move(description), *std::move(view));
  EXPECT_TRUE(item);
  const Result<> added = server.add(*std::move(item));
  EXPECT_TRUE(added);
  lobby.publish(server.offers());
  auto& probe = dynamic_cast<Probe&>(**node);
  probes_.emplace(node_name, &probe);
  return probe;
}

void NbdHost::take_effect() {
  graph.refresh();
  lobby.publish(server.offers());
}

Probe& NbdHost::probe(std::string_view node) { return *probes_.find(node)->second; }

sim::Line NbdHost::line() const {
  sim::Line line;
  line.segments = options_.segments;
  return line;
}

sim::Line NbdHost::line_from(std::string origin) const {
  sim::Line line = NbdHost::line();
  line.origin = std::move(origin);
  return line;
}

WireClient& NbdHost::client(const sim::Line& line) {
  sim::StreamPair pair =
      sim::stream_pair(world.scheduler, line, "#" + std::to_string(clients.size() + 1));
  clients.push_back(std::make_unique<WireClient>(world.scheduler, std::move(pair.client)));
  lobby.receive(std::move(pair.server));
  return *clients.back();
}

void NbdHost::attach(WireClient& client, std::string_view name, Attach how) {
  client.greets();
  if (how.structured) client.structures();
  if (how.meta) client.sets_meta(name, {"base:allocation"});
  std::vector<std::uint16_t> wanted;
  if (how.sized) wanted.push_back(inf::block_size);
  const OptionAnswer answer = client.goes(name, wanted);
  EXPECT_TRUE(answer.acked()) << answer.text();
}

WireClient& NbdHost::attached(std::string_view name, Attach how) {
  return attached(name, how, line());
}

WireClient& NbdHost::attached(std::string_view name, Attach how, const sim::Line& line) {
  WireClient& one = client(line);
  attach(one, name, how);
  return one;
}

void NbdHost::put(std::string_view node, std::uint64_t offset, std::string data) {
  graph::ViewOptions options("the test");
  options.access.taken = graph::Permission::consistent_read | graph::Permission::write;
  auto view = world.run(graph.attach(graph.find(std::string(node) + "-memory"), options));
  ASSERT_TRUE(view);
  const ConstBuffers list(bytes_of(data));
  const Result<> written = world.run((*view)->write(offset, list));
  EXPECT_TRUE(written);
  const Result<> detached = world.run(graph.detach(*std::move(view)));
  EXPECT_TRUE(detached);
}

std::string NbdHost::get(std::string_view node, Range range) {
  auto view = world.run(
      graph.attach(graph.find(std::string(node) + "-memory"), graph::ViewOptions("the test")));
  std::string data(range.length, '?');
  const Buffers list(std::as_writable_bytes(std::span(data)));
  const Result<> done = world.run((*view)->read(range.offset, list));
  EXPECT_TRUE(done);
  const Result<> detached = world.run(graph.detach(*std::move(view)));
  EXPECT_TRUE(detached);
  return data;
}

void NbdHost::begin_stop() {
  world.scheduler.settle();  // who has heard that it is attached has come to the server
  if (std::exchange(stop_begun_, true)) return;
  spawn(world.home.executor, Gate::Pass(), stop(lobby, server, stopped_));
}

bool NbdHost::nobody_is_left() {
  world.scheduler.settle();
  return connections() == 0 && lobby.clients() == 0 && world.buffers.lent() == 0;
}

std::vector<std::string> NbdHost::lines_with(std::string_view part) const {
  std::vector<std::string> found;
  for (const std::string& line : world.log.lines) {
    if (line.contains(part)) found.push_back(line);
  }
  return found;
}

std::string pattern(std::size_t length, unsigned start) {
  std::string data(length, '\0');
  for (std::size_t i = 0; i < length; ++i) data[i] = static_cast<char>((i + start) % 251 + 1);
  return data;
}

std::string difference(std::string_view actual, std::string_view expected) {
  const auto [left, right] = std::ranges::mismatch(actual, expected);
  if (left == actual.end() && right == expected.end()) return "";
  return std::to_string(actual.size()) + " bytes instead of " + std::to_string(expected.size()) +
         ", different from byte " + std::to_string(left - actual.begin());
}

std::string zeroes(std::size_t length) { return std::string(length, '\0'); }

}  // namespace test
