// nbd_fixture.h - a server in a simulated world, with exports of every kind, and clients that talk
// to it.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graph/graph.h"
#include "nbd/lobby.h"
#include "nbd/server.h"
#include "tests/support/wire_client.h"
#include "tests/support/world.h"

namespace test {

using sim::Segments;

// Stands above a memory node, writes down what it is asked, and can be told to fail or to wait. A
// call is its text: "read 0+512", "write 512+512", "zeroes 0+64 unmap fast", "discard 0+8",
// "prefetch 0+8", "map 0+64", "flush"; orders match on its beginning.
class Probe final : public graph::Filter {
 public:
  explicit Probe(graph::Edge child) : Filter(std::move(child)) {}

  std::vector<std::string> calls;
  std::optional<Range> bad;             // reads that touch it fail at its first byte in them
  std::map<std::string, Errc> failing;  // calls that begin so
  std::vector<std::string> held;        // calls that begin so wait for release()
  std::optional<std::vector<graph::Extent>> extents;  // of the whole node, instead of the child's
  std::uint32_t alignment = 1;                        // take effect with take_effect()
  std::uint32_t preferred = 4096;
  bool quick_zeroes = true;

  std::size_t count(std::string_view beginning) const;
  std::size_t waiting() const { return waiting_; }
  void release();

  Task<> read(std::uint64_t offset, const Buffers& out) override;
  Task<> write(std::uint64_t offset, const ConstBuffers& data, graph::WriteFlags flags) override;
  Task<> write_zeroes(Range range, graph::ZeroFlags flags) override;
  Task<> discard(Range range) override;
  Task<> flush_to_disk() override;
  Task<> prefetch(Range range) override;
  Task<graph::Extents> map(Range range, graph::MapDepth depth) override;
  graph::Limits own_limits() const override;

 private:
  Task<> call(std::string text);
  std::size_t waiting_ = 0;
  WaitQueue released_;
};

struct HostOptions {
  std::uint64_t seed = 1;
  Segments segments = Segments::whole;
  nbd::LobbyOptions lobby;
  nbd::ServerOptions server;
  std::size_t memory = 0;  // bytes that all connections share; 0: no limit
  std::vector<std::string> exports = {"disk", "ro", "", "block512", "block4096", "broken"};
  HostOptions() = default;
  HostOptions(Segments pieces) : segments(pieces) {}
};

// How attached() negotiates.
struct Attach {
  bool structured = true;
  bool meta = true;    // base:allocation; needs structured
  bool sized = false;  // asks for the block size, and so promises to keep to it
};
inline constexpr Attach simple_replies{false, false, false};

class NbdHost {
 public:
  static constexpr std::uint64_t disk_size = 256 * MiB;
  static constexpr std::uint64_t small_size = 1 * MiB;

  explicit NbdHost(HostOptions options = {});
  // Everybody leaves, the server stops, the graph is closed, no memory is still lent.
  ~NbdHost();
  NbdHost(const NbdHost&) = delete;
  NbdHost& operator=(const NbdHost&) = delete;

  // A client that has connected and said nothing.
  WireClient& client() { return client(line()); }
  WireClient& client(const sim::Line& line);
  // One that is in transmission.
  WireClient& attached(std::string_view name = "disk", Attach how = {});
  WireClient& attached(std::string_view name, Attach how, const sim::Line& line);
  void attach(WireClient& client, std::string_view name, Attach how);
  sim::Line line() const;
  // Of clients on another machine.
  sim::Line line_from(std::string origin) const;

  Probe& probe(std::string_view node);  // under the export of that name; "" is called "default"
  // Puts an export in front of a probe over `size` bytes of memory.
  Probe& serve(std::string name, std::uint64_t size, bool writable = true,
               std::string description = "");
  void put(std::string_view node, std::uint64_t offset, std::string data);
  std::string get(std::string_view node, Range range);
  void take_effect();

  // Clients that are haggling, and those that are served.
  std::size_t connections() const { return lobby.guests() + server.connections(); }

  // Stops the lobby and the server beside everything else.
  void begin_stop();
  bool stopped() const { return stopped_; }
  // What is left of clients that went: true when nothing is.
  bool nobody_is_left();
  Clock::Duration now() const { return world.scheduler.now().time_since_epoch(); }
  std::vector<std::string> lines_with(std::string_view part) const;

  sim::World world;
  MemoryAccount memory;
  MemoryBranch branch;
  graph::Graph graph;
  nbd::Server server;
  nbd::Lobby lobby;
  std::vector<std::unique_ptr<WireClient>> clients;

 private:
  HostOptions options_;
  std::map<std::string, Probe*, std::less<>> probes_;
  bool stop_begun_ = false;
  bool stopped_ = false;
};

// "abcd..." of any length, different at every 251st byte.
std::string pattern(std::size_t length, unsigned start = 0);
// "" when the two are equal, else where they are not: for bytes that nobody wants to see printed.
std::string difference(std::string_view actual, std::string_view expected);
std::string zeroes(std::size_t length);

}  // namespace test
