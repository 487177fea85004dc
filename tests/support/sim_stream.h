// sim_stream.h - two ends of a byte stream in memory. A seed decides in which pieces bytes arrive;
// what the peer does not read fills up, and stops the writer.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "graph/base/stream.h"
#include "tests/support/sim_executor.h"

namespace sim {

// The pieces in which bytes become readable, and are accepted for sending.
enum class Segments : std::uint8_t { whole, random, single };
inline constexpr Segments all_segments[] = {Segments::whole, Segments::random, Segments::single};

class Pipe;  // one direction

class SimStream final : public Stream {
 public:
  SimStream(Scheduler& scheduler, std::shared_ptr<Pipe> in, std::shared_ptr<Pipe> out,
            std::string name, std::string origin = "");
  ~SimStream() override;

  Result<std::size_t> read_now(std::span<std::byte> out) override;
  Task<> readable() override;
  Result<std::size_t> write_now(const ConstBuffers& data) override;
  Task<> writable() override;
  void close() override;
  std::string peer() const override { return name_; }
  std::string origin() const override { return origin_; }
  bool is_local() const override { return origin_.empty(); }

  // Half-close: the peer reads what was sent, then the end; it can still send.
  void end();
  // The line is cut: what is under way is gone, both ends find out.
  void lose();

  bool closed() const { return closed_; }
  // Would read_now say something other than 0, now or once it arrives?
  bool has_news() const;
  // Would write_now take something, or fail?
  bool has_room() const;
  std::uint64_t sent() const;      // bytes, ever
  std::uint64_t received() const;  // bytes, ever
  // How often the peer handed bytes over.
  std::uint64_t writes_of_peer() const;

 private:
  Scheduler& scheduler_;
  std::shared_ptr<Pipe> in_;
  std::shared_ptr<Pipe> out_;
  std::string name_;
  std::string origin_;
  bool closed_ = false;
  bool someone_reads_ = false;
  bool someone_writes_ = false;
};

struct Line {
  Segments segments = Segments::whole;    // of what the server reads and writes
  std::size_t to_server_max = 256 * KiB;  // bytes under way
  std::size_t to_client_max = 256 * KiB;
  std::string origin;  // of the client; "": this machine
};

struct StreamPair {
  std::unique_ptr<SimStream> server;
  std::unique_ptr<SimStream> client;  // reads and writes whole
};
StreamPair stream_pair(Scheduler& scheduler, const Line& line, std::string client_name = "peer");

}  // namespace sim
