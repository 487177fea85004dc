#include "graph/base/uring_engine.h"

#include <fcntl.h>
#include <liburing.h>
#include <linux/magic.h>
#include <linux/stat.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <asio/async_result.hpp>
#include <asio/buffer.hpp>
#include <asio/dispatch.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>
#include <asio/thread_pool.hpp>
#include <asio/use_awaitable.hpp>
#include <cassert>
#include <cerrno>
#include <climits>
#include <optional>
#include <utility>

#include "graph/base/offload.h"
#include "graph/base/wait_queue.h"

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

namespace {

constexpr unsigned ring_entries = 256;  // submissions of one batch; more make another system call
constexpr int attempts_max = 8;         // of what fails with EAGAIN
constexpr std::size_t offload_threads =
    4;  // for calls that no ring takes, on file systems that may hang

std::unexpected<Errno> last_error() { return std::unexpected(Errno{errno}); }
SysResult<> done_or_error(int result) {
  if (result < 0) return std::unexpected(Errno{-result});
  return {};
}
SysResult<std::size_t> count_or_error(int result) {
  if (result < 0) return std::unexpected(Errno{-result});
  return static_cast<std::size_t>(result);
}

class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int number) : number_(number) {}
  FileDescriptor(FileDescriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    if (this != &other) {
      reset();
      number_ = std::exchange(other.number_, -1);
    }
    return *this;
  }
  ~FileDescriptor() { reset(); }
  void reset() {
    if (number_ >= 0) ::close(std::exchange(number_, -1));
  }
  int release() { return std::exchange(number_, -1); }
  int number() const { return number_; }
  explicit operator bool() const { return number_ >= 0; }

 private:
  int number_ = -1;
};

// The ring of one worker. What is prepared during a turn of the event loop is submitted at once at
// its end.
class Ring {
 public:
  explicit Ring(asio::io_context& worker) : worker_(worker), wake_(worker) {}
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  ~Ring() {
    assert(in_flight_ == 0 && !submit_posted_);
    if (made_) io_uring_queue_exit(&ring_);
  }

  // Disabled as yet: the thread that enables it is the one that may submit.
  int make() {
    constexpr std::array flag_sets{IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
                                   IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN,
                                   IORING_SETUP_COOP_TASKRUN, 0U};
    int result = -ENOSYS;
    for (const unsigned flags : flag_sets) {
      result = io_uring_queue_init(ring_entries, &ring_, flags | IORING_SETUP_R_DISABLED);
      if (result != -EINVAL) break;  // EINVAL: a kernel without these flags
    }
    if (result < 0) return result;
    made_ = true;
    const FileDescriptor event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!event) return -errno;
    result = io_uring_register_eventfd(&ring_, event.number());
    if (result < 0) return result;
    const int own = ::fcntl(event.number(), F_DUPFD_CLOEXEC, 0);
    if (own < 0) return -errno;
    wake_.assign(own);
    return 0;
  }

  // An operation of the kernel's, as part of the frame of the coroutine that waits for it.
  struct Operation {
    using Handler = typename asio::async_result<asio::use_awaitable_t<>, void()>::handler_type;
    std::optional<Handler> handler;
    int result = 0;
  };

  // Fills a submission by `prepare(sqe)` and waits for its result, an errno when negative.
  template <class Prepare>
  asio::awaitable<int> perform(Prepare prepare) {
    Operation operation;
    for (int attempt = 0; attempt < attempts_max; ++attempt) {
      if (const int error = enable(); error < 0) co_return error;
      io_uring_sqe* entry = io_uring_get_sqe(&ring_);
      if (entry == nullptr) {
        submit();
        entry = io_uring_get_sqe(&ring_);
      }
      if (entry == nullptr) co_return -EBUSY;
      prepare(entry);
      io_uring_sqe_set_data(entry, &operation);
      ++in_flight_;
      submit_soon();
      auto start = [&operation](auto handler) { operation.handler.emplace(std::move(handler)); };
      co_await asio::async_initiate<const asio::use_awaitable_t<>, void()>(std::move(start),
                                                                           asio::use_awaitable);
      if (operation.result != -EAGAIN) break;  // else the kernel was short of something
    }
    co_return operation.result;
  }

 private:
  int enable() {
    if (enabled_) return 0;
    // liburing 2.3 declares io_uring_enable_rings and does not export it
    const long result = ::syscall(__NR_io_uring_register, ring_.ring_fd,
                                  IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
    if (result < 0) return -errno;
    enabled_ = true;
    return 0;
  }

  void submit_soon() {
    if (std::exchange(submit_posted_, true)) return;
    asio::post(worker_, [this] {
      submit_posted_ = false;
      submit();
      reap();  // what the page cache had is done already
      arm();
    });
  }
  void submit() {
    submitting_ = true;
    while (io_uring_sq_ready(&ring_) > 0) {
      const int taken = io_uring_submit(&ring_);
      if (taken >= 0 || taken == -EINTR) continue;
      assert(taken == -EBUSY || taken == -EAGAIN);
      reap();  // completions have to be taken first
    }
    submitting_ = false;
  }
  // Takes what is complete, and lets the coroutines go on through their executors.
  void reap() {
    io_uring_get_events(&ring_);
    std::array<io_uring_cqe*, 64> batch;
    for (;;) {
      const unsigned n = io_uring_peek_batch_cqe(&ring_, batch.data(), batch.size());
      if (n == 0) return;
      std::array<Operation*, 64> finished;
      for (unsigned i = 0; i < n; ++i) {
        finished[i] = static_cast<Operation*>(io_uring_cqe_get_data(batch[i]));
        finished[i]->result = batch[i]->res;
      }
      io_uring_cq_advance(&ring_, n);
      in_flight_ -= n;
      for (unsigned i = 0; i < n; ++i) {
        // moved out first: the frame that holds the operation may end inside
        Operation::Handler handler = std::move(*finished[i]->handler);
        finished[i]->handler.reset();
        resume(std::move(handler));
      }
    }
  }
  void resume(Operation::Handler handler) {
    auto executor = asio::get_associated_executor(handler);
    if (submitting_) {  // we are inside of another coroutine's call
      asio::post(executor, std::move(handler));
    } else {
      asio::dispatch(executor, std::move(handler));
    }
  }
  // The worker has something to wait for as long as something is in flight, and no longer.
  void arm() {
    if (armed_ || in_flight_ == 0) return;
    armed_ = true;
    wake_.async_read_some(asio::buffer(&wakes_, sizeof(wakes_)),
                          [this](const asio::error_code&, std::size_t) {
                            armed_ = false;
                            reap();
                            arm();
                          });
  }

  asio::io_context& worker_;
  io_uring ring_{};
  asio::posix::stream_descriptor wake_;  // an eventfd that counts completions
  std::uint64_t wakes_ = 0;
  std::size_t in_flight_ = 0;
  bool made_ = false;
  bool enabled_ = false;
  bool submit_posted_ = false;
  bool submitting_ = false;
  bool armed_ = false;
};

// What the files of an engine share.
struct Shared {
  explicit Shared(asio::io_context& worker) : ring(worker) {}
  Ring ring;
  std::optional<asio::thread_pool> pool;  // started when first needed
  asio::thread_pool& threads() {
    if (!pool) pool.emplace(offload_threads);
    return *pool;
  }
};

bool is_quick_file_system(const struct statfs& system) {
  switch (static_cast<unsigned long>(system.f_type)) {
    case EXT4_SUPER_MAGIC:
    case XFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case TMPFS_MAGIC:
      return true;
    default:
      return false;
  }
}

int open_flags(OpenFlags flags) {
  int bits = O_CLOEXEC | O_NOCTTY;
  bits |= flags.access == FileAccess::read_write ? O_RDWR : O_RDONLY;
  if (flags.caching == Caching::direct) bits |= O_DIRECT;
  if (flags.creation == Creation::exclusive) bits |= O_CREAT | O_EXCL;
  return bits;
}

std::string own_path(const FileDescriptor& file) {
  return "/proc/self/fd/" + std::to_string(file.number());
}

template <class Spans>
int span_count(const Spans& spans) {
  return static_cast<int>(std::min<std::size_t>(spans.size(), IOV_MAX));
}

class UringFile final : public EngineFile {
 public:
  UringFile(Shared& shared, FileDescriptor file, OpenFlags flags, const struct statfs& system)
      : shared_(shared),
        file_(std::move(file)),
        flags_(flags),
        quick_(is_quick_file_system(system)),
        in_memory_(static_cast<unsigned long>(system.f_type) == TMPFS_MAGIC) {}

  SysResult<std::size_t> read_now(std::uint64_t offset, const Buffers& out) override {
    // tmpfs knows no RWF_NOWAIT, and is memory
    const int flags = in_memory_ ? 0 : RWF_NOWAIT;
    const auto spans = out.spans();
    const ssize_t got = ::preadv2(file_.number(), as_iovecs(spans), span_count(spans),
                                  static_cast<off_t>(offset), flags);
    if (got < 0) return last_error();
    return static_cast<std::size_t>(got);
  }
  SysResult<std::size_t> write_now(std::uint64_t offset, const ConstBuffers& data) override {
    const auto spans = data.spans();
    const ssize_t put =
        ::pwritev(file_.number(), as_iovecs(spans), span_count(spans), static_cast<off_t>(offset));
    if (put < 0) return last_error();
    return static_cast<std::size_t>(put);
  }

  SysTask<std::size_t> read(std::uint64_t offset, const Buffers& out) override {
    const auto spans = out.spans();
    auto prepare = [&](io_uring_sqe* entry) {
      io_uring_prep_readv(entry, file_.number(), as_iovecs(spans),
                          static_cast<unsigned>(span_count(spans)), offset);
    };
    co_return count_or_error(co_await shared_.ring.perform(std::move(prepare)));
  }
  SysTask<std::size_t> write(std::uint64_t offset, const ConstBuffers& data,
                             Durability durability) override {
    const auto spans = data.spans();
    auto prepare = [&](io_uring_sqe* entry) {
      io_uring_prep_writev2(entry, file_.number(), as_iovecs(spans),
                            static_cast<unsigned>(span_count(spans)), offset,
                            durability == Durability::synced ? RWF_DSYNC : 0);
    };
    co_return count_or_error(co_await shared_.ring.perform(std::move(prepare)));
  }
  SysTask<> sync() override {
    auto prepare = [&](io_uring_sqe* entry) {
      io_uring_prep_fsync(entry, file_.number(), IORING_FSYNC_DATASYNC);
    };
    co_return done_or_error(co_await shared_.ring.perform(std::move(prepare)));
  }
  SysTask<> fallocate(FallocateMode mode, Range range) override {
    int bits = 0;
    if (mode == FallocateMode::punch_hole) bits = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    if (mode == FallocateMode::zero_range) bits = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
    auto prepare = [&](io_uring_sqe* entry) {
      io_uring_prep_fallocate(entry, file_.number(), bits, static_cast<off_t>(range.offset),
                              static_cast<off_t>(range.length));
    };
    co_return done_or_error(co_await shared_.ring.perform(std::move(prepare)));
  }
  SysTask<> will_need(Range range) override {
    // longer than the ring's 32 bits: the beginning is advice enough
    const auto length = static_cast<off_t>(std::min<std::uint64_t>(range.length, GiB));
    auto prepare = [&](io_uring_sqe* entry) {
      io_uring_prep_fadvise(entry, file_.number(), range.offset, length, POSIX_FADV_WILLNEED);
    };
    co_return done_or_error(co_await shared_.ring.perform(std::move(prepare)));
  }

  SysTask<> truncate(std::uint64_t size) override {
    auto call = [file = file_.number(), size]() -> SysResult<> {
      if (::ftruncate(file, static_cast<off_t>(size)) < 0) return last_error();
      return {};
    };
    if (quick_) co_return call();
    co_return co_await offload(shared_.threads(), std::move(call));
  }
  SysTask<std::uint64_t> seek(Seek what, std::uint64_t offset) override {
    auto call = [file = file_.number(), what, offset]() -> SysResult<std::uint64_t> {
      const off_t found =
          ::lseek(file, static_cast<off_t>(offset), what == Seek::data ? SEEK_DATA : SEEK_HOLE);
      if (found < 0) return last_error();
      return static_cast<std::uint64_t>(found);
    };
    if (quick_) co_return call();
    co_return co_await offload(shared_.threads(), std::move(call));
  }
  SysTask<FileStatus> status() override {
    struct statx found{};
    auto prepare = [&](io_uring_sqe* entry) {
      io_uring_prep_statx(entry, file_.number(), "", AT_EMPTY_PATH,
                          STATX_BASIC_STATS | STATX_DIOALIGN, &found);
    };
    const int result = co_await shared_.ring.perform(std::move(prepare));
    if (result < 0) co_return std::unexpected(Errno{-result});
    FileStatus status;
    status.size = found.stx_size;
    status.allocated = found.stx_blocks * 512;
    status.is_regular = S_ISREG(found.stx_mode);
    status.is_quick = quick_;
    status.preferred_block = found.stx_blksize;
    status.direct_alignment = direct_alignment(found);
    co_return status;
  }

  SysTask<> prepare_reopen(FileAccess access) override;
  void commit_reopen() override {
    if (other_) file_ = std::move(other_);
  }
  void abort_reopen() override { other_.reset(); }

  SysResult<> lock(std::uint64_t byte) override { return set_lock(F_RDLCK, byte); }
  SysResult<> unlock(std::uint64_t byte) override { return set_lock(F_UNLCK, byte); }
  SysResult<bool> is_locked(std::uint64_t byte) override {
    if (SysResult<> opened = open_locks(); !opened) return std::unexpected(opened.error());
    struct flock wanted = one_byte(F_WRLCK, byte);
    if (::fcntl(locks_.number(), F_OFD_GETLK, &wanted) < 0) return last_error();
    return wanted.l_type != F_UNLCK;
  }

  SysTask<> close() override;

 private:
  static std::uint32_t direct_alignment(const struct statx& found) {
    constexpr std::uint32_t safe = 4096;
    const std::uint32_t most = std::max(found.stx_dio_offset_align, found.stx_dio_mem_align);
    const bool known = (found.stx_mask & STATX_DIOALIGN) != 0 && most != 0;
    return known && is_power_of_two(most) ? std::max(most, 512U) : safe;
  }
  static struct flock one_byte(short type, std::uint64_t byte) {
    struct flock lock{};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = static_cast<off_t>(byte);
    lock.l_len = 1;
    return lock;
  }
  // A descriptor of its own that no ring ever sees.
  SysResult<> open_locks() {
    if (locks_) return {};
    locks_ = FileDescriptor(::open(own_path(file_).c_str(), O_RDONLY | O_CLOEXEC));
    if (!locks_) return last_error();
    return {};
  }
  SysResult<> set_lock(short type, std::uint64_t byte) {
    if (SysResult<> opened = open_locks(); !opened) return opened;
    struct flock wanted = one_byte(type, byte);
    if (::fcntl(locks_.number(), F_OFD_SETLK, &wanted) < 0) return last_error();
    return {};
  }

  Shared& shared_;
  FileDescriptor file_;
  FileDescriptor other_;  // between prepare_reopen and its end
  FileDescriptor locks_;
  OpenFlags flags_;
  const bool quick_;
  const bool in_memory_;
};

asio::awaitable<SysResult<FileDescriptor>> open_path(Ring& ring, std::string path, int flags) {
  auto prepare = [&](io_uring_sqe* entry) {
    io_uring_prep_openat(entry, AT_FDCWD, path.c_str(), flags, 0666);
  };
  const int result = co_await ring.perform(std::move(prepare));
  if (result < 0) co_return std::unexpected(Errno{-result});
  co_return FileDescriptor(result);
}

SysTask<> UringFile::prepare_reopen(FileAccess access) {
  OpenFlags flags = flags_;
  flags.access = access;
  flags.creation = Creation::never;
  auto opened = co_await open_path(shared_.ring, own_path(file_), open_flags(flags));
  if (!opened) co_return std::unexpected(opened.error());
  other_ = *std::move(opened);
  co_return SysResult<>();
}

SysTask<> UringFile::close() {
  locks_.reset();
  other_.reset();
  const int number = file_.release();
  auto prepare = [&](io_uring_sqe* entry) { io_uring_prep_close(entry, number); };
  co_return done_or_error(co_await shared_.ring.perform(std::move(prepare)));
}

class UringEngine final : public Engine {
 public:
  explicit UringEngine(asio::io_context& worker) : shared_(worker) {}
  int make() { return shared_.ring.make(); }

  std::string_view name() const override { return "io_uring"; }
  SysTask<std::unique_ptr<EngineFile>> open(const std::string& path, OpenFlags flags) override {
    // O_NONBLOCK, for a FIFO would wait for its other end; not for longer, or reads fail with
    // EAGAIN
    auto opened = co_await open_path(shared_.ring, path, open_flags(flags) | O_NONBLOCK);
    if (!opened) co_return std::unexpected(opened.error());
    const int number = opened->number();
    struct statfs system{};
    if (::fcntl(number, F_SETFL, ::fcntl(number, F_GETFL) & ~O_NONBLOCK) < 0 ||
        ::fstatfs(number, &system) < 0) {
      co_return last_error();
    }
    co_return std::make_unique<UringFile>(shared_, *std::move(opened), flags, system);
  }
  SysTask<> remove(const std::string& path) override {
    auto prepare = [&](io_uring_sqe* entry) {
      io_uring_prep_unlinkat(entry, AT_FDCWD, path.c_str(), 0);
    };
    co_return done_or_error(co_await shared_.ring.perform(std::move(prepare)));
  }

 private:
  Shared shared_;
};

}  // namespace

Result<std::unique_ptr<Engine>> make_uring_engine(asio::io_context& worker) {
  auto engine = std::make_unique<UringEngine>(worker);
  if (const int result = engine->make(); result < 0) {
    Error error = error_from_errno(-result, "io_uring");
    error.code = Errc::not_supported;
    return std::unexpected(std::move(error));
  }
  return engine;
}
