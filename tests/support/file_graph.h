// file_graph.h - a node of a file, on a simulated disk or a real one, as one object that a test can
// ask everything.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "graph/protocol/protocol.h"
#include "tests/support/graph_fixture.h"
#include "tests/support/real_world.h"
#include "tests/support/world.h"

namespace test {

using graph::Permission;

// Where the files are.
class Place {
 public:
  virtual ~Place() = default;
  virtual std::string missing() const { return ""; }
  virtual Home& home() = 0;
  virtual Result<> run(Task<> task) = 0;
  virtual std::string path(const std::string& name) const { return name; }
  virtual void make(const std::string& name, const std::string& content) = 0;
  virtual std::string content(const std::string& name) = 0;
  virtual std::uint64_t allocated(const std::string& name) = 0;
  virtual sim::MemoryLog& log() = 0;
};

inline std::vector<std::byte> to_bytes(std::string_view text) {
  const auto bytes = bytes_of(text);
  return {bytes.begin(), bytes.end()};
}
inline std::string to_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class SimPlace final : public Place {
 public:
  explicit SimPlace(std::uint64_t seed = 1) : disk(seed), world(seed, disk) {}
  Home& home() override { return world.home; }
  Result<> run(Task<> task) override { return world.run(std::move(task)); }
  void make(const std::string& name, const std::string& content) override {
    disk.make(name, to_bytes(content));
  }
  std::string content(const std::string& name) override { return to_text(disk.content(name)); }
  std::uint64_t allocated(const std::string& name) override { return disk.allocated(name); }
  sim::MemoryLog& log() override { return world.log; }

  sim::Disk disk;
  sim::World world;
};

class RealPlace final : public Place {
 public:
  explicit RealPlace(EngineKind engine) : world_(engine) {}
  std::string missing() const override {
    return world_.missing().empty() && folder_.is_tmpfs() ? "TMPDIR is a tmpfs" : world_.missing();
  }
  Home& home() override { return world_.home; }
  Result<> run(Task<> task) override { return world_.run(std::move(task)); }
  // A full name stays what it is.
  std::string path(const std::string& name) const override { return folder_.path(name); }
  void make(const std::string& name, const std::string& content) override {
    std::ofstream(path(name), std::ios::binary) << content;
  }
  std::string content(const std::string& name) override {
    std::ifstream file(path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::uint64_t allocated(const std::string& name) override {
    struct stat found{};
    ::stat(path(name).c_str(), &found);
    return static_cast<std::uint64_t>(found.st_blocks) * 512;
  }
  sim::MemoryLog& log() override { return world_.log; }

 private:
  test::TempDir folder_;
  test::RealWorld world_;
};

inline constexpr const graph::Driver* file_drivers[] = {&graph::file_driver,
                                                        &graph::host_device_driver};

// A graph of one node of a file, "disk0", and a view of it.
class FileGraph {
 public:
  explicit FileGraph(Place& place) : place_(place), graph_(place.home(), file_drivers) {}
  FileGraph(const FileGraph&) = delete;
  FileGraph& operator=(const FileGraph&) = delete;
  ~FileGraph() {
    if (view) (void)detach();
    (void)close();
  }

  using Keys = std::initializer_list<std::pair<const char*, OptionValue>>;
  Result<> open(const std::string& name, Keys keys = {}) {
    Options options;
    set(options, "driver", OptionValue{driver, {}});
    set(options, "filename", OptionValue{place_.path(name), {}});
    for (const auto& [key, value] : keys) set(options, key, value);
    return place_.run(add(options));
  }
  // A view that may do everything.
  Result<> attach(graph::Permissions taken = Permission::consistent_read | Permission::write |
                                             Permission::resize) {
    graph::ViewOptions wanted("test");
    wanted.policy = graph::RangePolicy::growable;
    wanted.access.taken = taken;
    return place_.run(attach_view(wanted));
  }
  // A view of an export, whose size stays.
  Result<> attach_export() {
    graph::ViewOptions wanted("export 'test'");
    wanted.access.taken = Permission::consistent_read | Permission::write;
    return place_.run(attach_view(wanted));
  }
  Result<> close() { return place_.run(graph_.close()); }
  Result<> detach() { return place_.run(graph_.detach(std::move(view))); }

  Result<> write(std::uint64_t offset, std::string_view data, graph::WriteFlags flags = {}) {
    Buffer memory(data.size());  // aligned, for O_DIRECT
    std::ranges::copy(bytes_of(data), memory.bytes().begin());
    const ConstBuffers list(memory.bytes());
    return place_.run(view->write(offset, list, flags));
  }
  Result<> zero(Range range, bool may_unmap, bool no_fallback = false) {
    graph::ZeroFlags flags;
    flags.may_unmap = may_unmap;
    flags.no_fallback = no_fallback;
    return place_.run(view->write_zeroes(range, flags));
  }
  Result<> discard(Range range) { return place_.run(view->discard(range)); }
  Result<> flush() { return place_.run(view->flush()); }
  Result<> resize(std::uint64_t size) { return place_.run(view->resize(size)); }
  Result<> prefetch(Range range) { return place_.run(view->prefetch(range)); }
  Result<std::string> read(std::uint64_t offset, std::size_t length) {
    Buffer memory(length);
    const Buffers list(memory.bytes());
    if (Result<> done = place_.run(view->read(offset, list)); !done) {
      return std::unexpected(done.error());
    }
    return to_text(memory.bytes());
  }
  // "data 4096, hole 8192"
  std::string map(Range range, graph::MapDepth depth = graph::MapDepth::zeroes) {
    std::string text;
    if (Result<> done = place_.run(ask(range, depth, text)); !done) return done.error().message;
    return text;
  }

  std::string driver = "file";
  std::unique_ptr<graph::BlockBackend> view;
  std::shared_ptr<graph::Node> node;

 private:
  static void set(Options& options, std::string key, OptionValue value) {
    const auto dot = key.find('.');
    if (dot == std::string::npos) return options.set(std::move(key), std::move(value));
    auto inner = std::make_shared<Options>();
    inner->set(key.substr(dot + 1), std::move(value));
    options.set(key.substr(0, dot), OptionValue{inner, {}});
  }
  Task<> add(const Options& options) {
    CO_TRY(node, co_await graph_.add("disk0", options));
    co_return ok;
  }
  Task<> attach_view(const graph::ViewOptions& wanted) {
    CO_TRY(view, co_await graph_.attach(node, wanted));
    co_return ok;
  }
  Task<> ask(Range range, graph::MapDepth depth, std::string& text) {
    CO_TRY(const graph::StatusExtents found, co_await view->block_status(range, depth, 100));
    for (const auto& extent : found) {
      if (!text.empty()) text += ", ";
      text += (extent.zero ? "hole " : "data ") + std::to_string(extent.length);
    }
    co_return ok;
  }

  Place& place_;
  graph::Graph graph_;
};

inline OptionValue text(std::string value) { return {std::move(value), {}}; }
inline OptionValue yes() { return {true, {}}; }

}  // namespace test
