#include "nbd/connection.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace nbd {
namespace {

constexpr std::size_t input_size = 256 * KiB;
constexpr std::size_t unsent_max = 16 * MiB;  // of a long answer, before the next chunk is read
constexpr Clock::Duration report_interval = std::chrono::seconds(1);

}  // namespace

// What was read from the socket and not parsed yet.
class Connection::Input {
 public:
  explicit Input(BufferPool& pool) : pool_(pool) {}
  std::span<const std::byte> bytes() const { return buffer_.bytes().subspan(start_, end_ - start_); }
  std::size_t size() const { return end_ - start_; }
  void consume(std::size_t n) {
    start_ += n;
    if (start_ == end_) start_ = end_ = 0;
  }
  // Room for more behind what is there.
  std::span<std::byte> space() {
    if (!buffer_) buffer_ = PooledBuffer(pool_, input_size);
    if (start_ > 0) {
      std::memmove(buffer_.bytes().data(), buffer_.bytes().data() + start_, size());
      end_ -= std::exchange(start_, 0);
    }
    return buffer_.bytes().subspan(end_);
  }
  void filled(std::size_t n) { end_ += n; }
  // Gives the memory back while there is nothing in it.
  void rest() {
    if (size() == 0) buffer_ = PooledBuffer();
  }

 private:
  BufferPool& pool_;
  PooledBuffer buffer_;
  std::size_t start_ = 0;
  std::size_t end_ = 0;
};

Connection::Connection(std::unique_ptr<Stream> stream, Server& server)
    : stream_(std::move(stream)), server_(server), replies_(*stream_) {}

Connection::~Connection() { assert(requests_.inside() == 0 && helpers_.inside() == 0); }

std::string Connection::who() const { return "client " + stream_->peer(); }

// Closes the stream when `deadline` comes before somebody cancels it.
asio::awaitable<void> Connection::watch(Timer& deadline, std::string_view what) {
  if (!co_await deadline.wait() || closed_) co_return;
  server_.home().log.info(who() + ": " + std::string(what));
  close();
}

asio::awaitable<void> Connection::run() {
  Home& home = server_.home();
  const Clock::Duration limit = server_.options().handshake_timeout;
  std::unique_ptr<Timer> deadline;
  std::unique_ptr<Timer> patience;
  if (limit > Clock::Duration{}) {
    deadline = home.clock.timer(limit);
    spawn(home.executor, helpers_.enter_anyway(),
          watch(*deadline, "did not finish the handshake in time"));
  }
  auto session = co_await negotiate(*stream_, server_);
  if (deadline) deadline->cancel();
  if (!session && closed_) {
    // whoever closed it said why
  } else if (!session) {
    const bool left = session.error().code == Errc::connection_lost;
    home.log.write(left ? LogLevel::debug : LogLevel::info, who() + ": " + session.error().message);
  } else if (!closed_) {
    session_ = *session;
    transmitting_ = true;
    home.log.info(who() + ": attached to " + session_.item->view().describe());
    spawn(home.executor, helpers_.enter_anyway(), write_replies());
    const Result<> ended = co_await read_requests();
    end_batch();
    if (!ended && !closed_ && ended.error().code != Errc::connection_lost) {
      home.log.warning(who() + ": " + ended.error().message);
      close();
    }
    // Who leaves gets the answers to what was asked before (statement 118), but can't make us wait for ever.
    patience = home.clock.timer(server_.options().drain_timeout);
    spawn(home.executor, helpers_.enter_anyway(), watch(*patience, "does not read its replies"));
    co_await requests_.drained();
    writer_ends_ = true;
    replies_waiting_.notify_all();
    while (!replies_.empty() && !closed_) co_await replies_.below(replies_.unsent());
    patience->cancel();
    home.log.info(who() + ": left " + session_.item->view().describe());
  }
  close();
  co_await helpers_.drained();
}

// Returns when the client says goodbye.
// Errors: connection_lost; invalid_argument: the stream can't be made sense of any more.
Task<> Connection::read_requests() {
  Input input(server_.home().buffers);
  while (true) {
    CO_CHECK(co_await more_input(input));
    while (input.size() >= sizeof(RequestHeader)) {
      auto more = co_await next_request(input);
      if (!more) co_return std::unexpected(std::move(more).error());
      if (!*more) co_return ok;
    }
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
Task<> Connection::more_input(Input& input) {
  while (true) {
    input.rest();
    CO_CHECK(co_await wait_readable());
    CO_TRY(const std::size_t n, stream_->read_now(input.space()));
    input.filled(n);
    if (n > 0) co_return ok;
  }
}

// Takes one request out of `input` and starts it. False when it is the last.
// Requires: its header is there.
Task<bool> Connection::next_request(Input& input) {
  ByteReader reader(input.bytes());
  const RequestHeader header = *reader.take<RequestHeader>();
  if (header.magic != request_magic) {
    co_return failure(Errc::invalid_argument, "a request with a wrong magic number");
  }
  input.consume(sizeof header);
  Request request;
  request.command = header.command;
  request.flags = header.flags;
  request.cookie = header.cookie;
  request.range = {header.offset, header.length};
  if (request.command == Command::disconnect) co_return false;

  Verdict verdict = check(request, session_);
  if (server_.stopping()) verdict = Verdict(WireError::eshutdown, "the server is stopping");
  const bool good = verdict.error == WireError::none;
  const std::size_t memory = good ? memory_of(request, session_) : 0;
  if (!budget_.has_room_for(memory)) co_await wait_for_room(memory);
  Budget::Share share = budget_.take(memory);
  if (request.command == Command::write) {
    if (request.range.length > write_drain_max) {
      co_return failure(Errc::invalid_argument, "a write of " +
                                                    std::to_string(request.range.length) +
                                                    " bytes, too long even to be ignored");
    }
    if (good) {
      request.payload = PooledBuffer(server_.home().buffers, request.range.length);
      CO_CHECK(co_await take_payload(input, request.payload.bytes()));
    } else {
      CO_CHECK(co_await skip_payload(input, request.range.length));
    }
  }
  if (good) {
    start(std::move(request), std::move(share));
  } else {
    refuse(request, std::move(share), verdict, session_, server_.home(), *this);
  }
  co_return true;
}

// The part that is not in `input` yet goes straight to its place.
Task<> Connection::take_payload(Input& input, std::span<std::byte> payload) {
  const std::size_t here = std::min(payload.size(), input.size());
  std::ranges::copy(input.bytes().first(here), payload.begin());
  input.consume(here);
  std::span<std::byte> rest = payload.subspan(here);
  while (!rest.empty()) {
    CO_TRY(const std::size_t n, stream_->read_now(rest));
    rest = rest.subspan(n);
    if (n == 0) CO_CHECK(co_await wait_readable());
  }
  co_return ok;
}

Task<> Connection::skip_payload(Input& input, std::uint64_t length) {
  while (length > 0) {
    const std::size_t here = std::min<std::uint64_t>(length, input.size());
    input.consume(here);
    length -= here;
    if (length == 0) break;
    CO_CHECK(co_await more_input(input));
  }
  co_return ok;
}

asio::awaitable<void> Connection::wait_for_room(std::size_t bytes) {
  end_batch();
  while (!budget_.has_room_for(bytes) && !closed_) co_await budget_.changed();
  reading_batch_ = true;
}

void Connection::start(Request request, Budget::Share share) {
  spawn(server_.home().executor, requests_.enter_anyway(),
        carry_out(std::move(request), std::move(share), session_, server_.home(), *this));
}

void Connection::post(Reply reply) {
  replies_.add(std::move(reply));
  if (!reading_batch_) replies_waiting_.notify_one();
}

asio::awaitable<void> Connection::room() { return replies_.below(unsent_max); }

// Sends what the peer takes at once; the writer waits for the rest.
void Connection::send() {
  if (writer_busy_ || replies_.empty()) return;
  const auto all = replies_.send_now();
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
    const auto all = replies_.send_now();
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
  replies_waiting_.notify_all();
}

// While the server is stopping: nothing under way, nothing unsent.
void Connection::close_if_done() {
  if (server_.winding_up() && budget_.idle() && replies_.empty() && requests_.inside() == 0) close();
}

void Connection::wind_up() {
  if (transmitting_) {
    close_if_done();
  } else {
    close();
  }
}

void Connection::cut_off() {
  if (closed_) return;
  server_.home().log.warning(who() + ": cut off, its requests took too long");
  close();
}

void Connection::give_way() {
  server_.home().log.info(who() + ": did not finish the handshake, gives way to others");
  close();
}

void Connection::report(const Request& request, const Error& error) {
  const Clock::Time now = server_.home().clock.now();
  if (reported_ && now - *reported_ < report_interval) return;
  reported_ = now;
  server_.home().log.warning(session_.item->view().describe() + ": " +
                             std::to_string(request.range.length) + " bytes at " +
                             std::to_string(request.range.offset) + ": " + error.message);
}

}  // namespace nbd
