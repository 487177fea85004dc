#include "graph/protocol/host_file.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <system_error>
#include <utility>

namespace graph {
namespace {

// Copied inside a call at most: others wait meanwhile.
constexpr std::size_t inline_max = 256 * KiB;
constexpr std::uint64_t page = 4096;                // a write of less may have to read first
constexpr std::uint64_t transfer_max = 0x7ffff000;  // Linux moves no more in one call
constexpr auto slow_write = std::chrono::milliseconds(2);
constexpr auto slow_pause = std::chrono::seconds(1);  // that long, writes go to the engine

}  // namespace

std::string in_words(Range range) {
  return std::to_string(range.length) + " bytes at " + std::to_string(range.offset);
}

HostFile::HostFile(HostOpened opened)
    : settings_(std::move(opened.settings)),
      file_(std::move(opened.file)),
      status_(opened.status),
      size_(status_.size),
      unit_(settings_.caching == Caching::direct ? status_.direct_alignment : 1),
      reads_now_(settings_.caching == Caching::buffered),
      writes_now_(settings_.caching == Caching::buffered && status_.is_quick) {}

Error HostFile::blamed(Errc code, std::uint64_t offset, const std::string& what) const {
  return fault(code, offset, std::string(driver().name) + ": " + what);
}

Error HostFile::system_fault(Errno error, std::uint64_t offset, std::string_view what) const {
  const Errc code = errc_from_errno(error.number);
  // not_supported would make the caller try something else
  return blamed(code == Errc::not_supported ? Errc::io_error : code, offset,
                std::string(what) + ": " + std::generic_category().message(error.number));
}

Error HostFile::lost_writes() const {
  return blamed(Errc::io_error, 0,
                "an earlier write to the medium failed, data is lost: reopen the file");
}

Error HostFile::cut_short(std::uint64_t offset) const {
  return blamed(Errc::io_error, offset,
                "somebody cut it: nothing at " + std::to_string(offset) + " of " +
                    std::to_string(size_) + " bytes");
}

Limits HostFile::own_limits() const {
  Limits limits;
  limits.request_alignment = limits.memory_alignment = unit_;
  limits.zero_alignment = limits.discard_alignment = unit_;
  limits.preferred = std::clamp<std::uint32_t>(status_.preferred_block, 512, 32 * MiB);
  limits.preferred = std::max(std::bit_floor(limits.preferred), unit_);
  limits.max_transfer = align_down(transfer_max, std::max<std::uint64_t>(page, unit_));
  limits.native_fua = true;
  limits.unaligned_tail_writes = unit_ == 1;
  return limits;
}

Task<std::uint64_t> HostFile::allocated_size() {
  const SysResult<FileStatus> status = co_await file_->status();
  if (!status) co_return std::unexpected(system_fault(status.error(), 0, "its status"));
  co_return status->allocated;
}

Task<> HostFile::read(std::uint64_t offset, const Buffers& out) {
  std::size_t done = 0;
  if (reads_now_ && out.size() <= inline_max) {
    const SysResult<std::size_t> got = file_->read_now(offset, out);
    if (got) {
      if (*got == out.size()) return succeeded();
      done = *got;  // short: the rest has to wait, or is missing; only the engine's read can tell
    } else if (got.error().number == EOPNOTSUPP) {
      reads_now_ = false;
    }
  }
  return read_rest(offset, out, done);
}

Task<> HostFile::read_rest(std::uint64_t offset, const Buffers& out, std::size_t done) {
  const std::size_t whole = align_down(out.size(), unit_);
  while (done < whole) {
    const Buffers rest = out.slice(done, whole - done);
    const SysResult<std::size_t> got = co_await file_->read(offset + done, rest);
    if (!got) {
      if (got.error().number == EINTR) continue;
      co_return co_await judged(system_fault(got.error(), offset + done,
                                             "read of " + in_words({offset + done, rest.size()})));
    }
    const std::size_t next = align_down(done + *got, unit_);
    if (next == done) co_return co_await judged(cut_short(offset + done + *got));
    done = next;
  }
  if (whole == out.size()) co_return ok;
  const Buffers tail = out.slice(whole, out.size() - whole);
  co_return co_await read_tail(offset + whole, tail);
}

// The last bytes of a file that does not end on a whole unit, with O_DIRECT.
Task<> HostFile::read_tail(std::uint64_t offset, const Buffers& out) {
  PooledBuffer bounce(home().buffers, unit_);
  const Buffers unit(bounce.bytes());
  for (;;) {
    const SysResult<std::size_t> got = co_await file_->read(offset, unit);
    if (got && *got >= out.size()) break;
    if (got) co_return std::unexpected(cut_short(offset + *got));
    if (got.error().number != EINTR) {
      co_return std::unexpected(
          system_fault(got.error(), offset, "read of " + in_words({offset, out.size()})));
    }
  }
  copy_bytes(out, ConstBuffers(unit));
  co_return ok;
}

bool HostFile::may_write_now(std::uint64_t offset, const ConstBuffers& data,
                             WriteFlags flags) const {
  return writes_now_ && !flags.fua && data.size() <= inline_max && is_aligned(offset, page) &&
         is_aligned(data.size(), page) && !writes_.closed() &&
         (slow_until_ == Clock::Time{} || home().clock.now() >= slow_until_);
}

Task<> HostFile::write(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) {
  std::size_t done = 0;
  if (may_write_now(offset, data, flags)) {
    const Clock::Time start = home().clock.now();
    const SysResult<std::size_t> put = file_->write_now(offset, data);
    const Clock::Time end = home().clock.now();
    if (end - start >= slow_write) slow_until_ = end + slow_pause;
    if (put) {
      done = *put;
      if (done > 0) believe(offset + done);
      if (done == data.size()) return succeeded();
    }
  }
  return write_rest(offset, data, flags, done);
}

Task<> HostFile::write_rest(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags,
                            std::size_t done) {
  if (flags.fua && failed_) co_return std::unexpected(lost_writes());
  if (!is_aligned(data.size(), unit_)) co_return co_await write_tail(offset, data, flags);
  Gate::Pass pass = writes_.try_enter();
  if (!pass) pass = co_await writes_.enter();
  co_return co_await write_all(offset, data, flags, done, offset + data.size());
}

Task<> HostFile::write_tail(std::uint64_t offset, const ConstBuffers& data, WriteFlags) {
  return failed(blamed(Errc::invalid_argument, offset,
                       in_words({offset, data.size()}) + " end in the middle of a block"));
}

Task<> HostFile::write_all(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags,
                           std::size_t done, std::uint64_t end) {
  while (done < data.size()) {
    const ConstBuffers rest = data.slice(done, data.size() - done);
    const SysResult<std::size_t> put = co_await file_->write(
        offset + done, rest, flags.fua ? Durability::synced : Durability::cached);
    if (!put && put.error().number == EINTR) continue;
    const std::size_t next = put ? align_down(done + *put, unit_) : done;
    if (next == done) {
      const Errno error = put ? Errno{EIO} : put.error();
      // a write may fail for want of space before anything is lost; elsewhere nobody can tell
      if (flags.fua && (error.number == EIO || !status_.is_quick)) {
        fail_for_good("a durable write");
      }
      co_await see_growth(end);
      co_return co_await judged(
          system_fault(error, offset + done, "write of " + in_words({offset + done, rest.size()})));
    }
    done = next;
    believe(std::min(offset + done, end));
  }
  if (flags.fua && failed_) co_return std::unexpected(lost_writes());  // as in sync()
  co_return ok;
}

// A write up to `end` failed, of which a part may be there: from now on it is read as it will be
// when the file is opened again.
asio::awaitable<void> HostFile::see_growth(std::uint64_t end) {
  if (end <= size_ || status_.kind != FileKind::regular) co_return;
  const SysResult<FileStatus> status = co_await file_->status();
  if (status) believe(std::min(status->size, end));
}

void HostFile::fail_for_good(std::string_view why) {
  if (std::exchange(failed_, true)) return;
  home().log.error(name() + ": " + std::string(driver().name) + ": " + std::string(why) +
                   " failed: no flush succeeds until the file is reopened");
}

Task<> HostFile::sync() {
  if (failed_) co_return std::unexpected(lost_writes());
  for (;;) {
    const SysResult<> done = co_await file_->sync();
    // one that ended meanwhile may have been told of what this one waited for
    if (done && failed_) co_return std::unexpected(lost_writes());
    if (done) co_return ok;
    if (done.error().number == EINTR) continue;
    fail_for_good("fdatasync");
    Error error = system_fault(done.error(), 0, "fdatasync");
    error.code = Errc::io_error;
    co_return std::unexpected(std::move(error));
  }
}

Task<> HostFile::flush_to_disk() {
  if (access_ == FileAccess::read_only && !failed_) return succeeded();  // F-7
  return sync();
}

Task<> HostFile::prefetch(Range range) {
  if (unit_ > 1) co_return ok;  // no cache to bring it into
  const SysResult<> done = co_await file_->will_need(range);
  if (done || !is_unsupported(done.error())) co_return ok;  // advice
  co_return std::unexpected(blamed(Errc::not_supported, range.offset, "no read-ahead"));
}

void HostFile::leave_worker() {
  handed_ = file_->hand_over();
  file_.reset();
}

void HostFile::enter_worker() { file_ = home().engine.take_over(std::move(handed_)); }

}  // namespace graph
