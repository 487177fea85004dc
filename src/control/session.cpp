#include "src/control/session.h"

#include <utility>
#include <vector>

namespace app::control {
namespace {

constexpr std::size_t input_length = 16 * KiB;

}  // namespace

Session::Session(Home& home, Host& host, Turns& turns, std::unique_ptr<Stream> stream)
    : home_(home), host_(host), turns_(turns), stream_(std::move(stream)) {}

asio::awaitable<void> Session::run() {
  spawn(home_.executor, writing_.enter_anyway(), write());
  send(to_text(greeting()));
  co_await listen();
  end();
  co_await writing_.drained();
}

asio::awaitable<void> Session::listen() {
  std::vector<std::byte> input(input_length);
  while (!over_) {
    if (const Result<> news = co_await stream_->readable(); !news) co_return;
    const Result<std::size_t> got = stream_->read_now(input);
    if (!got) co_return;
    co_await answer({reinterpret_cast<const char*>(input.data()), *got});
  }
}

// A reply is taken by the client before its next request is looked at.
asio::awaitable<void> Session::answer(std::string_view bytes) {
  while (!over_) {
    const std::optional<Result<Json>> request = reader_.take(bytes);
    if (!request) co_return;
    const Reply reply = co_await reply_to(host_, turns_, agreement_, *request);
    send(to_text(reply.message));
    co_await sent();
    if (reply.after == After::quit) host_.quit();
    if (!*request && request->error().code == Errc::no_space) end();
  }
}

// What the client takes at once needs no coroutine, and has left before a stop.
void Session::send(const std::string& message) {
  waiting_ += message + "\r\n";
  if (in_hand_ == 0) {
    const ConstBuffers list(bytes_of(waiting_));
    const Result<std::size_t> taken = stream_->write_now(list);
    if (!taken) return end();
    waiting_.erase(0, *taken);
  }
  changed_.notify_all();
}

void Session::tell(const std::string& event) {
  if (over_ || !agreement_.negotiated) return;
  send(event);
  if (waiting_.size() + in_hand_ <= events_backlog_max) return;
  home_.log.warning("control client " + stream_->peer() + " does not read its events: left");
  end();
}

asio::awaitable<void> Session::write() {
  while (!over_) {
    if (waiting_.empty()) {
      co_await changed_.wait();
      continue;
    }
    const std::string batch = std::exchange(waiting_, {});
    in_hand_ = batch.size();
    const ConstBuffers list(bytes_of(batch));
    const Result<> done = co_await write_all(*stream_, list);
    in_hand_ = 0;
    if (!done) end();
    changed_.notify_all();
  }
}

asio::awaitable<void> Session::sent() {
  while (!over_ && waiting_.size() + in_hand_ > 0) co_await changed_.wait();
}

void Session::end() {
  if (std::exchange(over_, true)) return;
  stream_->close();
  changed_.notify_all();
}

}  // namespace app::control
