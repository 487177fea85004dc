// test_nodes.h - nodes that a test can see into and give orders to: what their neighbour asked of
// them is written down as text, and a call can be told to fail, or to wait until it is let go.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graph/base/wait_queue.h"
#include "graph/driver.h"
#include "tests/support/sim_executor.h"

namespace test {

// What a node was asked, and what it is to do about it. A call is its text: "read 0+512", "write
// 512+512 fua", "zeroes 0+64 unmap", "discard 0+8", "flush", "drop caches", "resize 9", "map 0+64",
// "map 0+64 allocation", "close"; orders match on its beginning.
class Script {
 public:
  std::vector<std::string> calls;
  // Requests that a driver need not expect: misaligned, too long, outside.
  std::vector<std::string> violations;

  // The `nth` call from now on that begins like this fails.
  void fail(std::string beginning, Errc code, unsigned nth = 1);
  // Every such call fails until heal().
  void break_down(std::string beginning, Errc code) { broken_[std::move(beginning)] = code; }
  void heal() { broken_.clear(); }
  // Such calls wait, after they were written down, until released.
  void hold(std::string beginning) { held_.push_back(std::move(beginning)); }
  void release();
  std::size_t waiting() const { return waiting_; }
  // Each call takes up to `steps` of virtual time, drawn by lot.
  void dawdle(sim::Scheduler& scheduler, std::uint64_t steps) {
    dice_ = &scheduler, steps_ = steps;
  }
  std::size_t count(std::string_view beginning) const;
  // What was written down since the last time one looked.
  std::vector<std::string> take() { return std::exchange(calls, {}); }

  Task<> call(const graph::Node& node, std::string text);

 private:
  struct Fault {
    std::string beginning;
    Errc code;
    unsigned countdown;
  };
  std::vector<Fault> faults_;
  std::map<std::string, Errc, std::less<>> broken_;
  std::vector<std::string> held_;
  std::size_t waiting_ = 0;
  WaitQueue released_;
  sim::Scheduler* dice_ = nullptr;
  std::uint64_t steps_ = 0;
};

// How a node takes part in changes of rights.
class Rights {
 public:
  // "prepare write, resize", "commit", "abort", "lose write"
  std::vector<std::string> log;
  std::optional<Errc> refuses;  // the next prepare

  Result<> prepare(graph::Access own);
  void commit() { log.emplace_back("commit"); }
  void abort() { log.emplace_back("abort"); }
};

// A medium: bytes in memory, with any limits.
class Disk final : public graph::Protocol {
 public:
  explicit Disk(std::string bytes) : content(std::move(bytes)) {}

  std::string content;
  std::string durable;  // what a power cut leaves
  graph::Limits wants;  // take effect when the graph changes, or by Graph::refresh()
  graph::Growth grows = graph::Growth::yes;
  std::optional<Errc> close_error;
  std::optional<std::vector<graph::Extent>>
      extents;  // of the whole disk; default: all data, settled
  Script script;
  Rights rights;

  std::uint64_t own_size() const override { return content.size(); }
  graph::Growth growth() const override { return grows; }
  Task<> read(std::uint64_t offset, const Buffers& out) override;
  Task<> write(std::uint64_t offset, const ConstBuffers& data, graph::WriteFlags flags) override;
  Task<> write_zeroes(Range range, graph::ZeroFlags flags) override;
  Task<> discard(Range range) override;
  Task<> flush_to_children() override;
  Task<> flush_to_disk() override;
  Task<> resize(std::uint64_t size) override;
  Task<> prefetch(Range range) override;
  Task<graph::Extents> map(Range range, graph::MapDepth depth) override;
  Result<> prepare_access(graph::Access own) override { return rights.prepare(own); }
  void commit_access() override { rights.commit(); }
  void abort_access() override { rights.abort(); }
  Task<> before_lose(graph::Permissions lost) override;
  Task<> close() override;
  graph::Limits own_limits() const override { return wants; }

 private:
  enum class Growing { no, yes };
  void inspect(const std::string& call, Range range, std::uint64_t length_max, Growing growing);
};

// Shows its child, writes down what goes through it.
class Pass final : public graph::Filter {
 public:
  explicit Pass(graph::Edge child) : Filter(std::move(child)) {}
  Script script;
  Rights rights;
  std::optional<std::uint32_t> alignment;  // asks for at least this

  Task<> read(std::uint64_t offset, const Buffers& out) override;
  Task<> write(std::uint64_t offset, const ConstBuffers& data, graph::WriteFlags flags) override;
  Result<> prepare_access(graph::Access own) override { return rights.prepare(own); }
  void commit_access() override { rights.commit(); }
  void abort_access() override { rights.abort(); }
  Task<> before_lose(graph::Permissions lost) override;
  graph::Limits own_limits() const override;
};

// A format whose map is a table. What is not in the table is in the layer below. Writes go to
// `data_start` and on of the file, which grows.
class Table final : public graph::Format {
 public:
  Table(graph::Edge file, std::uint64_t size) : bytes(size), file_(std::move(file)) { own(file_); }
  Table(graph::Edge file, graph::Edge other, std::uint64_t size)
      : bytes(size), file_(std::move(file)), other_(std::move(other)) {
    own(file_);
    own(other_);
  }
  std::uint64_t bytes;
  std::uint64_t data_start = 0;
  std::optional<std::uint64_t> map_max;  // answers cover no more than this
  Script script;

  // [offset, offset + length) has this kind; data at `at` of the file.
  void put(Range range, graph::ExtentKind kind, std::uint64_t at = 0);
  // The rest of the table's own decisions about an extent.
  graph::Extent& last() { return table_.back().second; }
  graph::Edge& file() { return file_; }
  graph::Edge& other() { return other_; }

  std::uint64_t own_size() const override { return bytes; }
  graph::Growth growth() const override { return graph::Growth::yes; }
  Task<> write(std::uint64_t offset, const ConstBuffers& data, graph::WriteFlags flags) override;
  Task<> flush_to_children() override;
  Task<> read_opaque(std::uint64_t offset, const Buffers& out) override;
  Task<graph::Extents> map(Range range, graph::MapDepth depth) override;
  Task<> close() override;

 private:
  graph::Edge file_;
  graph::Edge other_;                                           // backing, or data
  std::vector<std::pair<std::uint64_t, graph::Extent>> table_;  // by offset
};

// "0+512": a range, as calls write it.
std::string text_of(Range range);

// Of nodes that tests build themselves.
extern const graph::Driver test_driver;
// Opens a Pass over the key 'file', or fails after that when 'fails' is true.
extern const graph::Driver pass_driver;

}  // namespace test
