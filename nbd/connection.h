// connection.h - one client from its greeting to its leaving: reads requests in bulk, starts each at once, sends
// finished replies in bulk. An idle connection holds no buffer.
// Spec: proto.md, "Transmission", "Terminating the transmission phase".
#pragma once

#include <memory>
#include <optional>

#include "graph/base/gate.h"
#include "nbd/negotiate_server.h"
#include "nbd/transmission.h"

namespace nbd {

class Connection final : public Outbox {
 public:
  Connection(std::unique_ptr<Stream> stream, Server& server);
  ~Connection() override;

  // Negotiates, serves, and returns when the stream is closed and nothing of the client is left.
  asio::awaitable<void> run();
  // The server is stopping: closes now if the client has nothing under way, else when that is answered.
  void wind_up();
  // Closes whatever is under way.
  void cut_off();
  // Closes in favour of another client.
  // Requires: handshaking().
  void give_way();
  // Has not agreed on an export yet.
  bool handshaking() const { return !transmitting_ && !closed_; }
  // Has agreed on one, and may still have requests under way.
  bool attached() const { return transmitting_; }

  // Outbox
  void post(Reply reply) override;
  asio::awaitable<void> room() override;
  bool gone() const override { return closed_; }
  void report(const Request& request, const Error& error) override;

 private:
  class Input;
  asio::awaitable<void> watch(Timer& deadline, std::string_view what);
  asio::awaitable<void> write_replies();
  Task<> read_requests();
  Task<bool> next_request(Input& input);
  Task<> take_payload(Input& input, std::span<std::byte> payload);
  Task<> skip_payload(Input& input, std::uint64_t length);
  Task<> more_input(Input& input);
  Task<> wait_readable();
  void end_batch();
  asio::awaitable<void> wait_for_room(std::size_t bytes);
  void start(Request request, Budget::Share share);
  void send();
  void close();
  void close_if_done();
  std::string who() const;

  std::unique_ptr<Stream> stream_;
  Server& server_;
  Session session_;
  Budget budget_;
  ReplyQueue replies_;
  WaitQueue replies_waiting_;  // the writer sleeps here
  Gate requests_;              // a pass for each request under way
  Gate helpers_;               // a pass for the writer and the deadline
  bool transmitting_ = false;
  bool reading_batch_ = false;  // replies are sent when the batch is over
  bool writer_busy_ = false;    // the peer must read before more can be sent
  bool writer_ends_ = false;
  bool closed_ = false;
  std::optional<Clock::Time> reported_;  // the last line about a failing medium
};

}  // namespace nbd
