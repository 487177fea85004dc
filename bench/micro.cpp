// micro.cpp - what our own code costs before any disk or socket: a layer of the graph against a
// coroutine hop, a request through a connection, a reply on its way out. Everything runs against
// `null-co`.
#include <benchmark/benchmark.h>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>
#include <memory>
#include <vector>

#include "formats/formats.h"
#include "graph/graph.h"
#include "graph/protocol/protocol.h"
#include "nbd/lobby.h"
#include "nbd/server.h"
#include "nbd/wire.h"
#include "tests/support/world.h"

namespace {

// A filter that does nothing, and is a coroutine to do it.
class Hop final : public graph::Filter {
 public:
  using Filter::Filter;
  Task<> read(std::uint64_t offset, const Buffers& out) override {
    co_return co_await file().read(offset, out);
  }
};
constexpr OptionSpec hop_options[] = {{"file", Kind::node, "", "the node below"}};
Task<std::unique_ptr<graph::Node>> open_hop(graph::OpenContext& context) {
  CO_TRY(graph::Edge file, co_await context.attach("file", graph::Role::filtered));
  co_return std::make_unique<Hop>(std::move(file));
}
constexpr graph::Driver hop_driver{"hop", "a coroutine", hop_options, open_hop};

// A worker without engine: null-co needs none.
class Bench {
 public:
  Bench() : scheduler_(1), clock_(scheduler_) {}
  ~Bench() {
    if (view_) run(graph_.detach(std::move(view_)));
    run(graph_.close());
  }

  template <class T>
  void run(Task<T> task) {
    asio::co_spawn(
        io_,
        [](Task<T> inner) -> asio::awaitable<void> {
          const auto done = co_await std::move(inner);
          if (!done) std::abort();
        }(std::move(task)),
        asio::detached);
    io_.restart();
    io_.run();
  }

  // A view of `layers` nodes of that driver over null-co.
  graph::BlockBackend& view(int layers, std::string_view driver = "raw") {
    run(build(layers, driver));
    return *view_;
  }
  std::unique_ptr<graph::BlockBackend> release_view() { return std::move(view_); }
  Task<> close_view(std::unique_ptr<graph::BlockBackend> view) {
    return graph_.detach(std::move(view));
  }
  Home& home() { return home_; }
  asio::io_context& io() { return io_; }

 private:
  Task<> build(int layers, std::string_view driver) {
    Options disk;
    disk.set("driver", OptionValue{std::string("null-co"), {}});
    CO_CHECK(co_await graph_.add("n0", disk));
    for (int i = 1; i <= layers; ++i) {
      Options layer;
      layer.set("driver", OptionValue{std::string(driver), {}});
      layer.set("file", OptionValue{"n" + std::to_string(i - 1), {}});
      CO_CHECK(co_await graph_.add("n" + std::to_string(i), layer));
    }
    graph::ViewOptions options("bench");
    CO_TRY(view_, co_await graph_.attach(graph_.find("n" + std::to_string(layers)), options));
    co_return ok;
  }

  asio::io_context io_{1};
  sim::Scheduler scheduler_;
  sim::SimClock clock_;
  sim::NoEngine engine_;
  BufferPool buffers_;
  sim::MemoryLog log_;
  std::unique_ptr<Helpers> helpers_ = make_helpers();
  Home home_{io_.get_executor(), clock_, engine_, buffers_, log_, *helpers_};
  static constexpr const graph::Driver* drivers_[] = {&graph::null_co_driver, &formats::raw_driver,
                                                      &hop_driver};
  graph::Graph graph_{home_, drivers_};
  std::unique_ptr<graph::BlockBackend> view_;
};

Task<> read_for(benchmark::State& state, graph::BlockBackend& view) {
  // null-co fills it: one byte, so that the memory is not what is measured
  std::byte byte{};
  const Buffers out(std::span(&byte, 1));
  for (auto iteration : state) {
    (void)iteration;
    const Result<> done = co_await view.read(0, out);
    if (!done) std::abort();
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
  co_return ok;
}

// The cost of a layer is the slope over `layers`.
void bm_graph_read(benchmark::State& state) {
  Bench bench;
  graph::BlockBackend& view = bench.view(static_cast<int>(state.range(0)));
  bench.run(read_for(state, view));
}
BENCHMARK(bm_graph_read)->Name("bm_graph_read/layers")->Arg(0)->Arg(8)->Arg(64);

// The same slope when each layer is a coroutine that awaits the next one.
void bm_graph_hop(benchmark::State& state) {
  Bench bench;
  graph::BlockBackend& view = bench.view(static_cast<int>(state.range(0)), "hop");
  bench.run(read_for(state, view));
}
BENCHMARK(bm_graph_hop)->Name("bm_graph_read/hops")->Arg(0)->Arg(8)->Arg(64);

// A peer in memory: says what it was given, again and again, and swallows the answers.
class Peer final : public Stream {
 public:
  Peer(std::vector<std::byte> opening, std::vector<std::byte> batch, benchmark::State& state,
       std::int64_t requests_per_batch)
      : opening_(std::move(opening)),
        batch_(std::move(batch)),
        state_(state),
        requests_per_batch_(requests_per_batch) {}

  Result<std::size_t> read_now(std::span<std::byte> out) override {
    const auto& source = opened_ ? batch_ : opening_;
    const std::size_t n = std::min(out.size(), source.size() - at_);
    std::ranges::copy(std::span(source).subspan(at_, n), out.begin());
    at_ += n;
    return n;
  }
  Task<> readable() override {
    if (at_ == (opened_ ? batch_ : opening_).size()) {
      opened_ = true;
      at_ = 0;
      if (!state_.KeepRunningBatch(requests_per_batch_)) {
        return failed(Error(Errc::connection_lost, "enough"));
      }
    }
    return succeeded();
  }
  Result<std::size_t> write_now(const ConstBuffers& data) override { return data.size(); }
  Task<> writable() override { return succeeded(); }
  void close() override {}
  std::string peer() const override { return "bench"; }

 private:
  std::vector<std::byte> opening_;
  std::vector<std::byte> batch_;
  benchmark::State& state_;
  std::int64_t requests_per_batch_;
  std::size_t at_ = 0;
  bool opened_ = false;
};

template <class T>
void put(std::vector<std::byte>& to, const T& message) {
  const auto bytes = bytes_of(message);
  to.insert(to.end(), bytes.begin(), bytes.end());
}

std::vector<std::byte> opening(bool structured) {
  std::vector<std::byte> bytes;
  put(bytes, Be<std::uint32_t>(3));
  nbd::OptionHeader option;
  option.magic = nbd::option_magic;
  if (structured) {
    option.option = nbd::Option::structured_reply;
    option.length = 0;
    put(bytes, option);
  }
  option.option = nbd::Option::export_name;
  option.length = 0;
  put(bytes, option);
  return bytes;
}

std::vector<std::byte> requests(nbd::Command command, std::uint32_t size, std::size_t count) {
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i < count; ++i) {
    nbd::RequestHeader request;
    request.magic = nbd::request_magic;
    request.flags = std::uint16_t{0};
    request.command = command;
    request.cookie = i;
    request.offset = i * size;
    request.length = size;
    put(bytes, request);
    if (command == nbd::Command::write) bytes.resize(bytes.size() + size, std::byte{1});
  }
  return bytes;
}

void serve(benchmark::State& state, nbd::Command command, bool structured) {
  Bench bench;
  const auto size = static_cast<std::uint32_t>(state.range(0));
  const auto depth = static_cast<std::size_t>(state.range(1));
  bench.view(1);
  nbd::Server server(bench.home(), nbd::ServerOptions{});
  auto item = nbd::Export::create("", "", bench.release_view());
  if (!item || !server.add(*std::move(item))) std::abort();
  nbd::Lobby lobby(bench.home(), nbd::LobbyOptions{},
                   [&](std::unique_ptr<Stream> stream, nbd::Session session, nbd::Ticket ticket) {
                     server.attach(std::move(stream), std::move(session), std::move(ticket));
                   });
  lobby.publish(server.offers());
  lobby.receive(std::make_unique<Peer>(opening(structured), requests(command, size, depth), state,
                                       static_cast<std::int64_t>(depth)));
  bench.io().restart();
  bench.io().run();
  for (auto& released : server.release_exports()) bench.run(bench.close_view(released->release()));
  const auto done = static_cast<std::int64_t>(state.iterations());
  state.SetItemsProcessed(done);
  state.SetBytesProcessed(done * size);
}

void bm_nbd_read(benchmark::State& state) { serve(state, nbd::Command::read, false); }
void bm_nbd_read_structured(benchmark::State& state) { serve(state, nbd::Command::read, true); }
void bm_nbd_flush(benchmark::State& state) { serve(state, nbd::Command::flush, false); }
BENCHMARK(bm_nbd_read)->Args({4096, 1})->Args({4096, 32})->Args({262144, 8});
BENCHMARK(bm_nbd_read_structured)->Args({4096, 1})->Args({4096, 32});
BENCHMARK(bm_nbd_flush)->Args({0, 32});

}  // namespace

BENCHMARK_MAIN();
