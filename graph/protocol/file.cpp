// file.cpp - a regular file. All it asks of the system goes through the engine of its worker.
//
// - size() is what the node believes: the size at open, moved by its own writes and resizes. A file
//   that is shorter was cut by somebody else; reading there is an I/O error, not zeroes.
// - What the page cache can do at once is done inside the call, without a coroutine
//   (docs/architecture.md, "The life of a request").
// - A failed fsync means that written data is gone, and the kernel tells only once: the node has
//   failed until it is opened again.
#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cerrno>
#include <system_error>
#include <utility>

#include "graph/driver.h"
#include "graph/protocol/file_extents.h"
#include "graph/protocol/file_locks.h"
#include "graph/protocol/protocol.h"

namespace graph {
namespace {

constexpr std::array file_options{
    OptionSpec{"filename", Kind::path, "", "the file"},
    OptionSpec{"locking", Kind::choice, "auto",
               "keep other processes away with QEMU's locks; auto: where the file system can",
               "on|off|auto"},
    OptionSpec{"create.size", Kind::bytes, "",
               "make the file, sparse, of this size, if there is none"},
};

// Copied inside a call at most: others wait meanwhile.
constexpr std::size_t inline_max = 256 * KiB;
constexpr std::uint64_t page = 4096;                // a write of less may have to read first
constexpr std::uint64_t transfer_max = 0x7ffff000;  // Linux moves no more in one call
constexpr auto slow_write = std::chrono::milliseconds(2);
constexpr auto slow_pause = std::chrono::seconds(1);  // that long, writes go to the engine

constexpr Permissions writing =
    Permission::write | Permission::write_unchanged | Permission::resize;

enum class Locking : std::uint8_t { off, on, automatic };

struct FileSettings {
  std::string filename;
  Locking locking = Locking::automatic;
  FileAccess access = FileAccess::read_only;
  Caching caching = Caching::buffered;
};

bool is_unsupported(Errno error) {
  return error.number == EOPNOTSUPP || error.number == ENOSYS || error.number == ENODEV ||
         error.number == ENOTTY;
}

template <class T>
bool was_interrupted(const SysResult<T>& result) {
  return !result && result.error().number == EINTR;
}

std::string in_words(Range range) {
  return std::to_string(range.length) + " bytes at " + std::to_string(range.offset);
}

class File final : public Protocol {
 public:
  File(FileSettings settings, std::unique_ptr<EngineFile> file, FileStatus status)
      : settings_(std::move(settings)),
        file_(std::move(file)),
        status_(status),
        size_(status.size),
        unit_(settings_.caching == Caching::direct ? status.direct_alignment : 1),
        reads_now_(settings_.caching == Caching::buffered),
        writes_now_(settings_.caching == Caching::buffered && status.is_quick) {}

  std::uint64_t own_size() const override { return size_; }
  Growth growth() const override { return Growth::yes; }
  std::string detail() const override { return settings_.filename; }
  Limits own_limits() const override;

  Task<> read(std::uint64_t offset, const Buffers& out) override {
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

  Task<> write(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) override {
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

  Task<> write_zeroes(Range range, ZeroFlags flags) override;
  Task<> discard(Range range) override;
  Task<> flush_to_disk() override;
  Task<> resize(std::uint64_t size) override;
  Task<> prefetch(Range range) override;
  Task<Extents> map(Range range, MapDepth depth) override;

  Task<> before_gain(Permissions gained) override;
  Task<> before_lose(Permissions lost) override;
  Result<> prepare_access(Access own) override;
  void commit_access() override;
  void abort_access() override;
  Task<> close() override;

 private:
  // Nobody else changes the size, and no write that might is under way.
  class Alone {
   public:
    explicit Alone(File& file) : file_(&file) {}
    Alone(Alone&& other) noexcept : file_(std::exchange(other.file_, nullptr)) {}
    Alone& operator=(Alone&&) = delete;
    ~Alone() {
      if (file_ == nullptr) return;
      file_->alone_ = false;
      file_->writes_.open();
      file_->next_alone_.notify_one();
    }

   private:
    File* file_;
  };
  asio::awaitable<Alone> alone();

  bool may_write_now(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) const {
    return writes_now_ && !flags.fua && data.size() <= inline_max && is_aligned(offset, page) &&
           is_aligned(data.size(), page) && !writes_.closed() &&
           (slow_until_ == Clock::Time{} || home().clock.now() >= slow_until_);
  }
  void believe(std::uint64_t end) {
    if (end <= size_) return;
    size_ = end;
    refresh_size();
  }

  Task<> read_rest(std::uint64_t offset, const Buffers& out, std::size_t done);
  Task<> read_tail(std::uint64_t offset, const Buffers& out);
  Task<> write_rest(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags,
                    std::size_t done);
  Task<> write_tail(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags);
  Task<> write_all(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags,
                   std::size_t done, std::uint64_t end);
  Task<> truncate(std::uint64_t size);
  Task<> sync();
  SysTask<> fallocate(FallocateMode mode, Range range);
  bool& lacks(FallocateMode mode) {
    return mode == FallocateMode::punch_hole ? lacks_punch_ : lacks_zero_range_;
  }

  Error system_fault(Errno error, std::uint64_t offset, std::string_view what) const {
    const Errc code = errc_from_errno(error.number);
    // not_supported would make the caller try something else
    return fault(
        code == Errc::not_supported ? Errc::io_error : code, offset,
        "file: " + std::string(what) + ": " + std::generic_category().message(error.number));
  }
  Error cut_short(std::uint64_t offset) const;
  Error lost_writes() const {
    return fault(Errc::io_error, 0,
                 "file: an earlier write to the medium failed, data is lost: reopen the file");
  }
  void fail_for_good(std::string_view why);

  const FileSettings settings_;
  const std::unique_ptr<EngineFile> file_;
  const FileStatus status_;
  std::uint64_t size_;        // bytes
  const std::uint32_t unit_;  // of offsets, lengths and memory; 1 without O_DIRECT
  bool reads_now_;
  bool writes_now_;
  Clock::Time slow_until_{};
  bool lacks_punch_ = false;
  bool lacks_zero_range_ = false;
  bool failed_ = false;
  FileAccess access_ = settings_.access;
  FileAccess next_access_ = settings_.access;
  bool locks_work_ = true;
  FileLocks locks_;
  FileExtents extents_;
  Gate writes_;  // those that the engine does; closed while the size is set
  bool alone_ = false;
  WaitQueue next_alone_;
};

Limits File::own_limits() const {
  Limits limits;
  limits.request_alignment = limits.memory_alignment = unit_;
  limits.zero_alignment = limits.discard_alignment = unit_;
  limits.preferred = std::clamp<std::uint32_t>(status_.preferred_block, 512, 32 * MiB);
  limits.preferred = std::max(std::bit_floor(limits.preferred), unit_);
  limits.max_transfer = align_down(transfer_max, std::max<std::uint64_t>(page, unit_));
  limits.native_fua = true;
  limits.native_zeroes = !(lacks_punch_ && lacks_zero_range_);
  limits.unaligned_tail_writes = unit_ == 1;
  return limits;
}

Error File::cut_short(std::uint64_t offset) const {
  const std::string what = "file: somebody cut it: nothing at " + std::to_string(offset) + " of " +
                           std::to_string(size_) + " bytes";
  return fault(Errc::io_error, offset, what);
}

Task<> File::read_rest(std::uint64_t offset, const Buffers& out, std::size_t done) {
  const std::size_t whole = align_down(out.size(), unit_);
  while (done < whole) {
    const Buffers rest = out.slice(done, whole - done);
    const SysResult<std::size_t> got = co_await file_->read(offset + done, rest);
    if (!got) {
      if (got.error().number == EINTR) continue;
      co_return std::unexpected(system_fault(got.error(), offset + done,
                                             "read of " + in_words({offset + done, rest.size()})));
    }
    const std::size_t next = align_down(done + *got, unit_);
    if (next == done) co_return std::unexpected(cut_short(offset + done + *got));
    done = next;
  }
  if (whole == out.size()) co_return ok;
  const Buffers tail = out.slice(whole, out.size() - whole);
  co_return co_await read_tail(offset + whole, tail);
}

// The last bytes of a file that does not end on a whole unit, with O_DIRECT.
Task<> File::read_tail(std::uint64_t offset, const Buffers& out) {
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

asio::awaitable<File::Alone> File::alone() {
  while (alone_) co_await next_alone_.wait();
  alone_ = true;
  writes_.close();
  Alone turn(*this);
  co_await writes_.drained();
  co_return std::move(turn);
}

Task<> File::write_rest(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags,
                        std::size_t done) {
  if (flags.fua && failed_) co_return std::unexpected(lost_writes());
  if (!is_aligned(data.size(), unit_)) co_return co_await write_tail(offset, data, flags);
  Gate::Pass pass = writes_.try_enter();
  if (!pass) pass = co_await writes_.enter();
  co_return co_await write_all(offset, data, flags, done, offset + data.size());
}

// What is written past `end` is padding, and no part of the content.
Task<> File::write_all(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags,
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
      co_return std::unexpected(
          system_fault(error, offset + done, "write of " + in_words({offset + done, rest.size()})));
    }
    done = next;
    believe(std::min(offset + done, end));
  }
  co_return ok;
}

// O_DIRECT writes whole units only: the last one is filled up, and the file cut to its size again.
Task<> File::write_tail(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) {
  const Alone turn = co_await alone();
  const std::uint64_t end = offset + data.size();
  assert(end >= size_);  // only there may a request stop
  PooledBuffer bounce(home().buffers, align_up(data.size(), unit_));
  const Buffers padded(bounce.bytes());
  const Buffers padding(bounce.bytes().subspan(data.size()));
  copy_bytes(padded, data);
  fill_zero(padding);
  const ConstBuffers filled(padded);
  Result<> done = co_await write_all(offset, filled, flags, 0, end);
  // nobody has seen the padding, and nobody will: what may be left of it when this fails is zeroes
  Result<> cut = co_await truncate(size_);
  if (done && !cut) done = std::unexpected(std::move(cut).error().at(offset));
  if (done && flags.fua) done = co_await sync();
  co_return done;
}

SysTask<> File::fallocate(FallocateMode mode, Range range) {
  if (lacks(mode)) co_return std::unexpected(Errno{EOPNOTSUPP});
  for (;;) {
    const SysResult<> done = co_await file_->fallocate(mode, range);
    if (done || done.error().number != EINTR) {
      if (!done && is_unsupported(done.error())) lacks(mode) = true;
      co_return done;
    }
  }
}

Task<> File::write_zeroes(Range range, ZeroFlags flags) {
  if (flags.fua && failed_) co_return std::unexpected(lost_writes());
  SysResult<> done = std::unexpected(Errno{EOPNOTSUPP});
  if (flags.may_unmap) done = co_await fallocate(FallocateMode::punch_hole, range);
  if (!done && is_unsupported(done.error())) {
    done = co_await fallocate(FallocateMode::zero_range, range);
  }
  if (!done) {
    if (is_unsupported(done.error())) {
      co_return std::unexpected(fault(Errc::not_supported, range.offset,
                                      "file: the file system can't zero " + in_words(range)));
    }
    co_return std::unexpected(
        system_fault(done.error(), range.offset, "zeroing of " + in_words(range)));
  }
  extents_.forget();
  if (range.end() > size_) {
    const Alone turn = co_await alone();
    const std::uint64_t old = size_;
    if (range.end() > old) {
      Result<> grown = co_await truncate(range.end());
      if (!grown) {
        co_return std::unexpected(std::move(grown).error().at(std::max(old, range.offset)));
      }
    }
  }
  if (flags.fua) co_return co_await sync();
  co_return ok;
}

Task<> File::discard(Range range) {
  const SysResult<> done = co_await fallocate(FallocateMode::punch_hole, range);
  extents_.forget();
  if (done) co_return ok;
  if (is_unsupported(done.error())) {
    co_return std::unexpected(fault(Errc::not_supported, range.offset,
                                    "file: the file system can't discard " + in_words(range)));
  }
  co_return std::unexpected(
      system_fault(done.error(), range.offset, "discard of " + in_words(range)));
}

// Requires: alone.
Task<> File::truncate(std::uint64_t size) {
  for (;;) {
    const SysResult<> done = co_await file_->truncate(size);
    if (!done && done.error().number == EINTR) continue;
    extents_.forget();
    if (!done) {
      co_return std::unexpected(
          system_fault(done.error(), 0, "resize to " + std::to_string(size) + " bytes"));
    }
    size_ = size;
    refresh_size();
    co_return ok;
  }
}

Task<> File::resize(std::uint64_t size) {
  const Alone turn = co_await alone();
  co_return co_await truncate(size);
}

void File::fail_for_good(std::string_view why) {
  if (std::exchange(failed_, true)) return;
  home().log.error(name() + ": file: " + std::string(why) +
                   " failed: no flush succeeds until the file is reopened");
}

Task<> File::sync() {
  if (failed_) co_return std::unexpected(lost_writes());
  for (;;) {
    const SysResult<> done = co_await file_->sync();
    if (done) co_return ok;
    if (done.error().number == EINTR) continue;
    fail_for_good("fdatasync");
    Error error = system_fault(done.error(), 0, "fdatasync");
    error.code = Errc::io_error;
    co_return std::unexpected(std::move(error));
  }
}

Task<> File::flush_to_disk() {
  if (access_ == FileAccess::read_only && !failed_) return succeeded();  // F-7
  return sync();
}

Task<> File::prefetch(Range range) {
  if (unit_ > 1) co_return ok;  // no cache to bring it into
  const SysResult<> done = co_await file_->will_need(range);
  if (done || !is_unsupported(done.error())) co_return ok;  // advice
  co_return std::unexpected(fault(Errc::not_supported, range.offset, "file: no read-ahead"));
}

Task<Extents> File::map(Range range, MapDepth depth) {
  if (depth == MapDepth::allocation) co_return FileExtents::all_data(range);  // S-3
  SysResult<Extents> found = co_await extents_.find(*file_, range, size_);
  if (found) co_return *std::move(found);
  co_return std::unexpected(system_fault(found.error(), range.offset, "map of " + in_words(range)));
}

// P-8
Task<> File::before_gain(Permissions gained) {
  if (!gained.has_any(writing) || access_ == FileAccess::read_write) co_return ok;
  SysResult<> done = co_await file_->prepare_reopen(FileAccess::read_write);
  while (was_interrupted(done)) done = co_await file_->prepare_reopen(FileAccess::read_write);
  if (!done) {
    co_return std::unexpected(
        system_fault(done.error(), 0, "can't open '" + settings_.filename + "' for writing"));
  }
  next_access_ = FileAccess::read_write;
  co_return ok;
}

Task<> File::before_lose(Permissions lost) {
  if (!common().auto_read_only || !lost.has_any(writing) || access_ == FileAccess::read_only ||
      cumulative_access().taken.without(lost).has_any(writing)) {
    co_return ok;
  }
  // the last chance to learn that something was lost; the node tells whoever flushes next
  (void)co_await flush_to_disk();
  const SysResult<> done = co_await file_->prepare_reopen(FileAccess::read_only);
  if (done) next_access_ = FileAccess::read_only;
  co_return ok;  // else it stays open for writing, which does no harm
}

Result<> File::prepare_access(Access own) {
  if (settings_.locking == Locking::off || common().force_share || !locks_work_) return ok;
  const auto refused = locks_.prepare(*file_, own);
  if (!refused) return ok;
  if (refused->error == 0) {
    return std::unexpected(fault(Errc::busy, 0,
                                 "file: " + refused->message +
                                     ". Is another process using the image [" + settings_.filename +
                                     "]?"));
  }
  if (settings_.locking == Locking::automatic) {
    locks_work_ = false;
    locks_.release_all(*file_);
    home().log.warning(name() + ": file: no locks on '" + settings_.filename + "' (" +
                       std::generic_category().message(refused->error) +
                       "): other processes are not kept away");
    return ok;
  }
  return std::unexpected(system_fault(Errno{refused->error}, 0, refused->message));
}

void File::commit_access() {
  locks_.commit(*file_);
  file_->commit_reopen();
  access_ = next_access_;
}

void File::abort_access() {
  locks_.abort(*file_);
  file_->abort_reopen();
  next_access_ = access_;
}

Task<> File::close() {
  locks_.release_all(*file_);
  const SysResult<> done = co_await file_->close();
  if (!done) co_return std::unexpected(system_fault(done.error(), 0, "close"));
  if (failed_) co_return std::unexpected(lost_writes());
  co_return ok;
}

Error open_fault(const OpenContext& context, Errno error, const std::string& what) {
  Errc code = errc_from_errno(error.number);
  for (const int wrong_name : {ENOENT, ENOTDIR, EISDIR, ELOOP, ENAMETOOLONG, EEXIST}) {
    if (error.number == wrong_name) code = Errc::invalid_argument;
  }
  return {code, context.node_name(), 0,
          context.node_name() + ": file: " + what + ": " +
              std::generic_category().message(error.number)};
}

SysTask<std::unique_ptr<EngineFile>> open_uninterrupted(Engine& engine, const std::string& name,
                                                        OpenFlags flags) {
  auto opened = co_await engine.open(name, flags);
  while (was_interrupted(opened)) opened = co_await engine.open(name, flags);
  co_return std::move(opened);
}

// Makes the file, and leaves nothing behind when that fails.
Task<> create_file(OpenContext& context, const std::string& filename) {
  OpenFlags flags;
  flags.access = FileAccess::read_write;
  flags.creation = Creation::exclusive;
  Engine& engine = context.home().engine;
  const std::uint64_t size = context.options().bytes("create.size");
  auto made = co_await open_uninterrupted(engine, filename, flags);
  if (!made) {
    if (made.error().number == EEXIST) co_return ok;  // somebody else was quicker
    co_return context.blame("create",
                            open_fault(context, made.error(), "can't create '" + filename + "'"));
  }
  SysResult<> sized = co_await (*made)->truncate(size);
  while (was_interrupted(sized)) sized = co_await (*made)->truncate(size);
  const SysResult<> closed = co_await (*made)->close();
  if (sized) sized = closed;
  if (sized) co_return ok;
  (void)co_await engine.remove(filename);
  co_return context.blame("create.size", open_fault(context, sized.error(),
                                                    "can't make '" + filename + "' " +
                                                        std::to_string(size) + " bytes long"));
}

Task<std::unique_ptr<Node>> open_file(OpenContext& context) {
  const OptionReader& options = context.options();
  FileSettings settings;
  settings.filename = options.path("filename");
  if (settings.filename.empty()) {
    co_return context.blame(
        "filename",
        Error(Errc::invalid_argument, context.node_name() + ": the key 'filename' is missing"));
  }
  const std::string locking = options.text("locking");
  settings.locking = locking == "on"    ? Locking::on
                     : locking == "off" ? Locking::off
                                        : Locking::automatic;
  if (options.boolean("cache.direct")) settings.caching = Caching::direct;
  const bool writable = !context.common().read_only && !context.common().auto_read_only;
  if (writable) settings.access = FileAccess::read_write;

  Engine& engine = context.home().engine;
  OpenFlags flags;
  flags.access = settings.access;
  flags.caching = settings.caching;
  auto opened = co_await open_uninterrupted(engine, settings.filename, flags);
  if (!opened && opened.error().number == ENOENT && options.has("create.size")) {
    CO_CHECK(co_await create_file(context, settings.filename));
    opened = co_await open_uninterrupted(engine, settings.filename, flags);
  }
  if (!opened) {
    std::string what = "can't open '" + settings.filename + "'";
    if (settings.caching == Caching::direct && opened.error().number == EINVAL) {
      what += " with cache.direct";
    }
    co_return context.blame("filename", open_fault(context, opened.error(), what));
  }
  SysResult<FileStatus> status = co_await (*opened)->status();
  while (was_interrupted(status)) status = co_await (*opened)->status();
  if (!status || status->kind != FileKind::regular) {
    (void)co_await (*opened)->close();
    if (!status) {
      co_return context.blame("filename", open_fault(context, status.error(),
                                                     "can't examine '" + settings.filename + "'"));
    }
    co_return context.blame("filename", Error(Errc::invalid_argument,
                                              context.node_name() + ": file: '" +
                                                  settings.filename + "' is not a regular file"));
  }
  co_return std::make_unique<File>(std::move(settings), *std::move(opened), *status);
}

}  // namespace

extern const Driver file_driver{"file", "a file of the host", file_options, open_file};

}  // namespace graph
