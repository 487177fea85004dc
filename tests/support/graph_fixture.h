// graph_fixture.h - a small language for tests of the graph: build nodes, attach views, ask, let
// requests run beside each other, and look at what the neighbours saw.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"
#include "tests/support/test_nodes.h"
#include "tests/support/world.h"

namespace test {

using View = graph::BlockBackend;

// A task that was started and may not have ended. Keeps what the task refers to.
template <class T = void>
struct Started {
  std::optional<Result<T>> result;
  bool done() const { return result.has_value(); }
  bool succeeded() const { return result && result->has_value(); }
  std::optional<Errc> error() const {
    if (!result || result->has_value()) return std::nullopt;
    return result->error().code;
  }
};

// What a test graph is: a world, a graph, and the views that the test holds.
class Bench {
 public:
  explicit Bench(std::uint64_t seed = 1);
  // Detaches all views and closes the graph; no disk may have seen what a driver need not expect.
  ~Bench();
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  Disk& disk(std::string name, std::string content, graph::CommonOptions common = {});
  Disk& disk(std::string name, std::uint64_t size, graph::CommonOptions common = {}) {
    return disk(std::move(name), std::string(size, '.'), common);
  }
  Pass& filter(std::string name, graph::Node& child);
  Table& format(std::string name, graph::Node& file, std::uint64_t size,
                graph::CommonOptions common = {});
  Table& overlay(std::string name, graph::Node& file, graph::Node& backing, std::uint64_t size,
                 graph::CommonOptions common = {});
  // A format's node with an edge 'file' of `role`, and one 'other' where `other` is a node.
  Result<Table*> try_table(std::string name, graph::Node& file, graph::Role role,
                           graph::Node* other, graph::Role other_role, std::uint64_t size,
                           graph::CommonOptions common);
  graph::Node& add(std::string name,
                   std::initializer_list<std::pair<const char*, std::string>> options);
  // A node as a person would describe it, in the file "a.toml".
  graph::Node& add(std::string name, std::string_view toml);
  Result<graph::Node*> try_add(std::string name, std::string_view toml);
  std::shared_ptr<graph::Node> shared(const graph::Node& node) { return graph.find(node.name()); }
  // The limits of a disk changed.
  void refresh() { graph.refresh(); }

  Result<View*> try_view(graph::Node& node, graph::ViewOptions options);
  View& view(graph::Node& node, graph::ViewOptions options);
  View& reader(graph::Node& node, std::string user = "export 'r'");  // fixed, as of an export
  View& writer(graph::Node& node, std::string user = "export 'w'");  // fixed, as of an export
  View& grower(graph::Node& node, std::string user = "job 'g'");     // growable
  Result<> detach(View& view);

  template <class T>
  Result<T> run(Task<T> task) {
    return world.run(std::move(task));
  }
  template <class T>
  std::shared_ptr<Started<T>> start(Task<T> task) {
    auto started = std::make_shared<Started<T>>();
    spawn(world.home.executor, Gate::Pass(), follow(std::move(task), started));
    return started;
  }
  // Until nothing more happens by itself.
  void settle() { world.scheduler.run(); }

  // Through a view.
  Result<std::string> read(View& view, Range range);
  Result<> write(View& view, std::uint64_t offset, std::string data, graph::WriteFlags flags = {});
  Result<> zero(View& view, Range range, graph::ZeroFlags flags = {});
  Result<> discard(View& view, Range range) { return run(view.discard(range)); }
  Result<> flush(View& view) { return run(view.flush()); }
  std::shared_ptr<Started<>> start_read(View& view, Range range);
  std::shared_ptr<Started<>> start_write(View& view, std::uint64_t offset, std::string data,
                                         graph::WriteFlags flags = {});
  // "hole zero 4096 @1; data 512 @2": kind, length, depth.
  std::string status(View& view, Range range, graph::MapDepth depth = graph::MapDepth::zeroes,
                     std::size_t extents_max = 100);

  sim::World world;
  graph::Graph graph;
  std::vector<std::unique_ptr<View>> views;

 private:
  template <class T>
  static asio::awaitable<void> follow(Task<T> task, std::shared_ptr<Started<T>> started) {
    started->result.emplace(co_await std::move(task));
  }
  std::vector<Disk*> disks_;
  std::vector<std::shared_ptr<graph::Node>> kept_;
};

class GraphTest : public testing::Test, protected Bench {};

// The code of a failure; fails the test when there is none.
template <class T>
Errc code_of(const Result<T>& result) {
  if (!result) return result.error().code;
  ADD_FAILURE() << "it succeeded";
  return Errc{};
}
template <class T>
std::string message_of(const Result<T>& result) {
  return result ? "(success)" : result.error().message;
}

#define EXPECT_OK(expr) \
  if (const auto& done_ = (expr); !done_) ADD_FAILURE() << done_.error().message
#define ASSERT_OK(expr) \
  if (const auto& done_ = (expr); !done_) FAIL() << done_.error().message

}  // namespace test
