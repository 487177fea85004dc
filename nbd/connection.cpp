#include "nbd/connection.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace nbd {
namespace {

constexpr std::size_t idle_max = 8;  // readers kept for later
// Of a long answer, before the next chunk is read. As much as a chunk: memory_of() counts two.
constexpr std::size_t unsent_max = 4 * MiB;
constexpr Clock::Duration report_interval = std::chrono::seconds(1);
// Who holds memory that others wait for has to go on. In each second so much has to move, and so
// much of what is held that all of it could be done within about a minute.
constexpr Clock::Duration hoarding_interval = std::chrono::seconds(1);
constexpr std::size_t least_rate = 16 * KiB;
constexpr std::size_t intervals_for_all = 64;
// Looked at so often in a row, so that the client alone was waited for in two of them.
constexpr int slow_looks_max = 3;

}  // namespace

Connection::Connection(std::unique_ptr<Stream> stream, Session session, Ticket ticket,
                       Server& server)
    : stream_(std::move(stream)),
      server_(server),
      session_(std::move(session)),
      ticket_(std::move(ticket)),
      budget_(server.options().in_flight, server.home().memory),
      replies_(*stream_),
      input_(server.home().buffers) {}

Connection::~Connection() { assert(readers_.inside() == 0 && helpers_.inside() == 0); }

void Connection::log(LogLevel level, std::string_view text) const {
  const std::string peer = stream_->peer();
  server_.home().log.write(level, "client " + peer + ": " + std::string(text),
                           {.connection = peer, .export_name = session_.offer->name});
}

asio::awaitable<void> Connection::run() {
  Home& home = server_.home();
  log(LogLevel::info, "attached to " + session_.item->view().describe());
  spawn(home.executor, helpers_.enter_anyway(), write_replies());
  spawn(home.executor, readers_.enter_anyway(), take_turns(Start::now));
  while (!ended_) co_await reading_ended_.wait();
  end_batch();
  if (!*ended_ && !closed_ && ended_->error().code != Errc::connection_lost) {
    log(LogLevel::warning, ended_->error().message);
    close();
  }
  // Who leaves gets the answers to what was asked before (statement 118), but can't make us wait
  // for ever.
  const std::unique_ptr<Timer> patience = home.clock.timer(server_.options().drain_timeout);
  spawn(home.executor, helpers_.enter_anyway(), watch_patience(*patience));
  co_await readers_.drained();
  writer_ends_ = true;
  replies_waiting_.notify_all();
  while (!replies_.empty() && !closed_) co_await replies_.below(replies_.unsent());
  patience->cancel();
  log(LogLevel::info, "left " + session_.item->view().describe());
  close();
  co_await helpers_.drained();
}

asio::awaitable<void> Connection::watch_patience(Timer& patience) {
  const bool over = co_await patience.wait();
  if (!over || closed_) co_return;
  log(LogLevel::info, "does not read its replies");
  close();
}

// A client that hardly reads nor finishes what it began to send, and holds memory that others wait
// for, loses it.
asio::awaitable<void> Connection::watch_hoarding() {
  std::uint64_t before = moved_;
  int slow_looks = 0;
  while (!closed_ && budget_.borrowed() > 0) {
    co_await hoarding_->wait();
    if (closed_) break;
    const bool waits_for_peer = writer_busy_ || awaits_payload_;
    const std::uint64_t least = std::max(least_rate, budget_.borrowed() / intervals_for_all);
    const bool hoards = waits_for_peer && moved_ - before < least && budget_.memory_is_short();
    slow_looks = hoards ? slow_looks + 1 : 0;
    if (slow_looks == slow_looks_max) {
      log(LogLevel::warning, "holds " + std::to_string(budget_.borrowed()) +
                                 " bytes that others wait for, and hardly goes on: cut off");
      close();
      break;
    }
    before = moved_;
    hoarding_ = server_.home().clock.timer(hoarding_interval);
  }
  hoarding_.reset();
}

asio::awaitable<void> Connection::take_turns(Start start) {
  if (start == Start::when_called) {
    co_await yield();
    successor_called_ = false;
  }
  while (!ended_) {
    if (reader_) {
      if (idle_ >= idle_max) break;
      ++idle_;
      co_await turn_.wait();
      --idle_;
      successor_called_ = false;
      continue;
    }
    reader_ = true;
    auto work = co_await next_work();
    if (!work) {
      end_reading(std::unexpected(std::move(work).error()));
      break;
    }
    call_successor();
    reader_ = false;
    co_await carry_out(std::move(work->request), std::move(work->share), session_, server_.home(),
                       *this);
  }
}

// Whoever carries out a request may have to wait, and then somebody else must read. That is found
// out by being run: until we wait, nobody else is.
void Connection::call_successor() {
  if (std::exchange(successor_called_, true)) return;
  if (turn_.empty()) {
    spawn(server_.home().executor, readers_.enter_anyway(), take_turns(Start::when_called));
  } else {
    turn_.notify_one();
  }
}

void Connection::end_reading(Result<> why) {
  ended_ = std::move(why);
  turn_.notify_all();
  reading_ended_.notify_all();
}

// Reads until there is a request to carry out; those that are refused are answered on the way.
// Errors: connection_lost, also when the client says goodbye; invalid_argument: the stream can't be
// made sense of any more.
Task<Connection::Work> Connection::next_work() {
  while (true) {
    while (input_.size() < sizeof(RequestHeader)) CO_CHECK(co_await more_input());
    Work work;
    CO_TRY(const bool good, co_await next_request(work));
    if (good) co_return std::move(work);
  }
}

// What is done so far is sent: nothing may be held back while the reader waits.
void Connection::end_batch() {
  reading_batch_ = false;
  send();
}

Task<> Connection::wait_readable() {
  end_batch();
  close_if_done();
  Result<> readable = co_await stream_->readable();
  reading_batch_ = true;
  co_return readable;
}

// Waits for bytes and takes as many as there are.
Task<> Connection::more_input() {
  while (true) {
    input_.rest();
    CO_CHECK(co_await wait_readable());
    const std::size_t room = budget_.memory_is_short() ? Input::capacity_short : Input::capacity;
    CO_TRY(const std::size_t n, stream_->read_now(input_.space(room)));
    moved_ += n;
    input_.filled(n);
    if (n > 0) co_return ok;
  }
}

// Takes one request out of the input. False when it was refused, and answered.
// Requires: its header is there.
Task<bool> Connection::next_request(Work& work) {
  ByteReader reader(input_.bytes());
  const RequestHeader header = *reader.take<RequestHeader>();
  if (header.magic != request_magic) {
    co_return failure(Errc::invalid_argument, "a request with a wrong magic number");
  }
  input_.consume(sizeof header);
  Request& request = work.request;
  request.command = header.command;
  request.flags = header.flags;
  request.cookie = header.cookie;
  request.range = {header.offset, header.length};
  if (request.command == Command::disconnect) {
    co_return failure(Errc::connection_lost, "the client said goodbye");
  }

  Verdict verdict = check(request, session_);
  if (server_.stopping()) verdict = Verdict(WireError::eshutdown, "the server is stopping");
  const bool good = verdict.error == WireError::none;
  const std::size_t memory = good ? memory_of(request, session_) : memory_of(verdict, session_);
  work.share = budget_.try_take(memory);
  if (!work.share) work.share = co_await wait_for_room(memory);
  if (!work.share) co_return failure(Errc::canceled, "closed while it waited for memory");
  if (!hoarding_ && budget_.borrowed() > 0) {
    hoarding_ = server_.home().clock.timer(hoarding_interval);
    spawn(server_.home().executor, helpers_.enter_anyway(), watch_hoarding());
  }
  if (request.command == Command::write) {
    if (request.range.length > write_drain_max) {
      co_return failure(Errc::invalid_argument, "a write of " +
                                                    std::to_string(request.range.length) +
                                                    " bytes, too long even to be ignored");
    }
    if (good) {
      request.payload = PooledBuffer(server_.home().buffers, request.range.length);
      awaits_payload_ = true;
      Result<> taken = co_await take_payload(request.payload.bytes());
      awaits_payload_ = false;
      CO_CHECK(std::move(taken));
    } else {
      CO_CHECK(co_await skip_payload(request.range.length));
    }
  }
  if (!good) refuse(request, std::move(work.share), verdict, session_, server_.home(), *this);
  co_return good;
}

// The part that is not in `input` yet goes straight to its place.
Task<> Connection::take_payload(std::span<std::byte> payload) {
  const std::size_t here = std::min(payload.size(), input_.size());
  std::ranges::copy(input_.bytes().first(here), payload.begin());
  input_.consume(here);
  std::span<std::byte> rest = payload.subspan(here);
  while (!rest.empty()) {
    CO_TRY(const std::size_t n, stream_->read_now(rest));
    moved_ += n;
    rest = rest.subspan(n);
    if (n > 0) continue;
    input_.rest();  // there is nothing in it, and this may take long
    CO_CHECK(co_await wait_readable());
  }
  co_return ok;
}

Task<> Connection::skip_payload(std::uint64_t length) {
  while (length > 0) {
    const std::size_t here = std::min<std::uint64_t>(length, input_.size());
    input_.consume(here);
    length -= here;
    if (length == 0) break;
    CO_CHECK(co_await more_input());
  }
  co_return ok;
}

asio::awaitable<Budget::Share> Connection::wait_for_room(std::size_t bytes) {
  end_batch();
  input_.shrink();
  Budget::Share share = co_await budget_.take(bytes, closed_);
  reading_batch_ = true;
  co_return std::move(share);
}

void Connection::post(Reply reply) {
  replies_.add(std::move(reply));
  if (!reading_batch_) replies_waiting_.notify_one();
}

asio::awaitable<void> Connection::room() { return replies_.below(unsent_max); }

Result<bool> Connection::send_replies() {
  const std::size_t before = replies_.unsent();
  Result<bool> all = replies_.send_now();
  moved_ += before - replies_.unsent();
  return all;
}

// Sends what the peer takes at once; the writer waits for the rest.
void Connection::send() {
  if (writer_busy_ || replies_.empty()) return;
  const auto all = send_replies();
  if (!all) {
    close();
  } else if (!*all) {
    replies_waiting_.notify_one();
  }
}

// Sends what finishes while nobody reads a batch, and what did not fit into the socket then.
asio::awaitable<void> Connection::write_replies() {
  while (!closed_ && !(writer_ends_ && replies_.empty())) {
    if (replies_.empty()) {
      close_if_done();
      co_await replies_waiting_.wait();
      continue;
    }
    const auto all = send_replies();
    if (!all) {
      close();
    } else if (!*all) {
      writer_busy_ = true;
      const Result<> writable = co_await stream_->writable();
      writer_busy_ = false;
      if (!writable) close();
    }
  }
}

void Connection::close() {
  if (std::exchange(closed_, true)) return;
  stream_->close();
  replies_.abandon();
  budget_.wake();
  if (hoarding_) hoarding_->cancel();
  replies_waiting_.notify_all();
}

void Connection::close_if_done() {
  if (server_.winding_up() && budget_.idle() && replies_.empty()) close();
}

void Connection::cut_off() {
  if (closed_) return;
  log(LogLevel::warning, "cut off, its requests took too long");
  close();
}

void Connection::report(const Request& request, const Error& error) {
  const Clock::Time now = server_.home().clock.now();
  if (reported_ && now - *reported_ < report_interval) return;
  reported_ = now;
  const std::string peer = stream_->peer();
  const std::string what = describe(request);
  server_.home().log.warning(
      session_.item->view().describe() + ": " + std::to_string(request.range.length) +
          " bytes at " + std::to_string(request.range.offset) + ": " + error.message,
      {.connection = peer, .export_name = session_.offer->name, .request = what});
}

}  // namespace nbd
