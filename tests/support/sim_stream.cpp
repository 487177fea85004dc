#include "tests/support/sim_stream.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <vector>

#include "graph/base/wait_queue.h"

namespace sim {

class Pipe {
 public:
  Pipe(Segments reading, Segments writing, std::size_t capacity)
      : reading_(reading), writing_(writing), capacity_(capacity) {}

  std::size_t size() const { return bytes_.size() - start_; }
  std::size_t room() const { return capacity_ - std::min(capacity_, size()); }

  // Bytes that have arrived; the rest comes with the next segment.
  std::size_t arrived() const { return reading_ == Segments::whole ? size() : arrived_; }
  void arrive(Scheduler& scheduler) {
    if (arrived_ > 0 || size() == 0 || reading_ == Segments::whole) return;
    arrived_ = reading_ == Segments::single ? 1 : 1 + scheduler.choose(size());
  }
  std::size_t take(std::span<std::byte> out) {
    const std::size_t n = std::min(out.size(), arrived());
    if (n == 0) return 0;
    std::memcpy(out.data(), bytes_.data() + start_, n);
    start_ += n;
    arrived_ -= std::min(arrived_, n);
    taken += n;
    if (start_ == bytes_.size()) bytes_.clear(), start_ = 0;
    if (start_ > 1 * MiB) {
      bytes_.erase(bytes_.begin(), bytes_.begin() + static_cast<std::ptrdiff_t>(start_));
      start_ = 0;
    }
    space.notify_all();
    return n;
  }
  std::size_t put(Scheduler& scheduler, const ConstBuffers& data) {
    std::size_t n = std::min(room(), data.size());
    if (n > 1 && writing_ == Segments::random && scheduler.one_in(4)) n = 1 + scheduler.choose(n);
    const ConstBuffers part = data.slice(0, n);
    for (const auto& span : part.spans()) bytes_.insert(bytes_.end(), span.begin(), span.end());
    given += n;
    ++puts;
    if (n > 0) news.notify_all();
    return n;
  }
  void wake() {
    news.notify_all();
    space.notify_all();
  }

  bool writer_gone = false;
  bool reader_gone = false;
  bool lost = false;
  std::uint64_t taken = 0;
  std::uint64_t given = 0;
  std::uint64_t puts = 0;
  WaitQueue news;   // the reader sleeps here
  WaitQueue space;  // the writer

 private:
  const Segments reading_;
  const Segments writing_;
  const std::size_t capacity_;
  std::vector<std::byte> bytes_;
  std::size_t start_ = 0;
  std::size_t arrived_ = 0;
};

SimStream::SimStream(Scheduler& scheduler, std::shared_ptr<Pipe> in, std::shared_ptr<Pipe> out,
                     std::string name, std::string origin)
    : scheduler_(scheduler),
      in_(std::move(in)),
      out_(std::move(out)),
      name_(std::move(name)),
      origin_(std::move(origin)) {}

SimStream::~SimStream() { close(); }

bool SimStream::has_news() const {
  return closed_ || in_->lost || in_->size() > 0 || in_->writer_gone;
}

bool SimStream::has_room() const {
  return closed_ || out_->lost || out_->reader_gone || out_->room() > 0;
}

Result<std::size_t> SimStream::read_now(std::span<std::byte> out) {
  if (closed_) return failure(Errc::connection_lost, "the stream is closed");
  if (in_->lost) return failure(Errc::connection_lost, "the line is cut");
  if (in_->size() == 0 && in_->writer_gone) return failure(Errc::connection_lost, "the peer left");
  return in_->take(out);
}

Task<> SimStream::readable() {
  assert(!someone_reads_);
  someone_reads_ = true;
  if (has_news() && scheduler_.one_in(2)) co_await yield();
  while (!has_news()) co_await in_->news.wait();
  someone_reads_ = false;
  if (closed_) co_return failure(Errc::canceled, "the stream is closed");
  in_->arrive(scheduler_);
  co_return ok;
}

Result<std::size_t> SimStream::write_now(const ConstBuffers& data) {
  if (closed_) return failure(Errc::connection_lost, "the stream is closed");
  if (out_->lost || out_->reader_gone) return failure(Errc::connection_lost, "the peer is gone");
  return out_->put(scheduler_, data);
}

Task<> SimStream::writable() {
  assert(!someone_writes_);
  someone_writes_ = true;
  if (has_room() && scheduler_.one_in(2)) co_await yield();
  while (!has_room()) co_await out_->space.wait();
  someone_writes_ = false;
  if (closed_) co_return failure(Errc::canceled, "the stream is closed");
  co_return ok;
}

void SimStream::close() {
  if (std::exchange(closed_, true)) return;
  in_->reader_gone = true;
  out_->writer_gone = true;
  in_->wake();
  out_->wake();
}

void SimStream::end() {
  out_->writer_gone = true;
  out_->wake();
}

void SimStream::lose() {
  in_->lost = out_->lost = true;
  in_->wake();
  out_->wake();
}

std::uint64_t SimStream::sent() const { return out_->given; }
std::uint64_t SimStream::received() const { return in_->taken; }

std::uint64_t SimStream::writes_of_peer() const { return in_->puts; }

StreamPair stream_pair(Scheduler& scheduler, const Line& line, std::string client_name) {
  const auto to_server = std::make_shared<Pipe>(line.segments, Segments::whole, line.to_server_max);
  const auto to_client = std::make_shared<Pipe>(Segments::whole, line.segments, line.to_client_max);
  return {std::make_unique<SimStream>(scheduler, to_server, to_client, std::move(client_name),
                                      line.origin),
          std::make_unique<SimStream>(scheduler, to_client, to_server, "the server")};
}

}  // namespace sim
