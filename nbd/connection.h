// connection.h - one client from its choice of an export to its leaving: reads requests in bulk,
// starts each at once, sends finished replies in bulk. An idle connection holds no buffer.
//
// A few coroutines take turns at reading. The one that reads carries out what it has read; when
// that has to wait, another reads on. So a request that can finish at once costs no coroutine of
// its own, and as many are under way as the client asks for. Spec: proto.md, "Transmission",
// "Terminating the transmission phase".
#pragma once

#include <memory>
#include <optional>

#include "graph/base/gate.h"
#include "nbd/input.h"
#include "nbd/server.h"
#include "nbd/transmission.h"

namespace nbd {

class Connection final : public Outbox {
 public:
  Connection(std::unique_ptr<Stream> stream, Session session, Ticket ticket, Server& server);
  ~Connection() override;

  // Serves, and returns when the stream is closed and nothing of the client is left.
  asio::awaitable<void> run();
  const Export& served() const { return *session_.item; }
  // The server is stopping: closes now if the client has nothing under way, else when that is
  // answered.
  void close_if_done();
  // Closes whatever is under way.
  void cut_off();

  // Outbox
  void post(Reply reply) override;
  asio::awaitable<void> room() override;
  bool gone() const override { return closed_; }
  void report(const Request& request, const Error& error) override;

 private:
  struct Work {
    Request request;
    Budget::Share share;
  };
  enum class Start : std::uint8_t { now, when_called };
  asio::awaitable<void> watch_patience(Timer& patience);
  asio::awaitable<void> watch_hoarding();
  asio::awaitable<void> write_replies();
  asio::awaitable<void> take_turns(Start start);
  void call_successor();
  void end_reading(Result<> why);
  Task<Work> next_work();
  Task<bool> next_request(Work& work);
  Task<> take_payload(std::span<std::byte> payload);
  Task<> skip_payload(std::uint64_t length);
  Task<> more_input();
  Task<> wait_readable();
  void end_batch();
  asio::awaitable<Budget::Share> wait_for_room(std::size_t bytes);
  void send();
  Result<bool> send_replies();
  void close();
  // "client X: text", for programs also which client and export it is about.
  void log(LogLevel level, std::string_view text) const;

  const std::unique_ptr<Stream> stream_;
  Server& server_;
  const Session session_;
  const Ticket ticket_;
  Budget budget_;
  ReplyQueue replies_;
  Input input_;
  WaitQueue replies_waiting_;  // the writer sleeps here
  WaitQueue turn_;             // those who have nothing to read and nothing to do
  WaitQueue reading_ended_;
  Gate readers_;                     // a pass for each of those who take turns
  Gate helpers_;                     // a pass for the writer and those who watch
  std::unique_ptr<Timer> hoarding_;  // ticks while memory is borrowed
  std::uint64_t moved_ = 0;          // bytes read and sent
  bool awaits_payload_ = false;
  std::size_t idle_ = 0;           // readers in turn_
  bool reader_ = false;            // somebody is reading
  bool successor_called_ = false;  // somebody will look soon whether the socket needs a reader
  std::optional<Result<>> ended_;  // why nothing is read any more
  bool reading_batch_ = false;     // replies are sent when the batch is over
  bool writer_busy_ = false;       // the peer must read before more can be sent
  bool writer_ends_ = false;
  bool closed_ = false;
  std::optional<Clock::Time> reported_;  // the last line about a failing medium
};

}  // namespace nbd
