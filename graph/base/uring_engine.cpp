#include "graph/base/uring_engine.h"

#include <liburing.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <asio/async_result.hpp>
#include <asio/buffer.hpp>
#include <asio/dispatch.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/post.hpp>
#include <asio/use_awaitable.hpp>
#include <cassert>
#include <cerrno>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "graph/base/posix_file.h"
#include "graph/base/task.h"

namespace {

constexpr unsigned ring_entries = 256;  // submissions of one batch; more make another system call
constexpr int attempts_max = 8;         // of what fails with EAGAIN, and of submitting at all
constexpr unsigned spare_workers = 64;  // the kernel's threads beside those that shares can keep
constexpr unsigned share_max = 32;      // calls of one file that keep such a thread

SysResult<> done_or_error(int result) {
  if (result < 0) return std::unexpected(Errno{-result});
  return {};
}
SysResult<std::size_t> count_or_error(int result) {
  if (result < 0) return std::unexpected(Errno{-result});
  return static_cast<std::size_t>(result);
}

// The ring of one worker. What is prepared during a turn of the event loop is submitted at its end.
//
// What the kernel can't do at once it gives to threads of its own, a few for the whole ring; a call
// that hangs keeps one of them. So each file has a share of calls that may, and brings as many
// threads as it could keep.
class Ring {
 public:
  explicit Ring(asio::io_context& worker) : worker_(worker), wake_(worker) {}
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  ~Ring() {
    assert(in_flight_ == 0 && prepared_.empty() && !submit_posted_);
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
      if (entry == nullptr) {
        operation.result = -EAGAIN;
        co_await yield();  // those before us are submitted or fail meanwhile
        continue;
      }
      prepare(entry);
      io_uring_sqe_set_data(entry, &operation);
      prepared_.push_back(&operation);
      submit_soon();
      auto start = [&operation](auto handler) { operation.handler.emplace(std::move(handler)); };
      co_await asio::async_initiate<const asio::use_awaitable_t<>, void()>(std::move(start),
                                                                           asio::use_awaitable);
      if (operation.result != -EAGAIN) break;  // else the kernel was short of something
    }
    co_return operation.result;
  }

  void add_file() {
    ++files_;
    if (enabled_) set_workers();
  }
  void remove_file() {
    --files_;
    if (enabled_) set_workers();
  }

 private:
  int enable() {
    if (enabled_) return 0;
    // liburing 2.3 declares io_uring_enable_rings and does not export it
    const long result =
        ::syscall(__NR_io_uring_register, ring_.ring_fd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
    if (result < 0) return -errno;
    enabled_ = true;
    set_workers();
    return 0;
  }
  // A kernel that does not know how has its own idea of enough.
  void set_workers() {
    std::array<unsigned, 2> workers{spare_workers + share_max * files_, 0};  // 0: as it is
    (void)io_uring_register_iowq_max_workers(&ring_, workers.data());
  }

  void submit_soon() {
    if (std::exchange(submit_posted_, true)) return;
    asio::post(worker_, [this] {
      submit_posted_ = false;
      submit_or_fail();
      reap();  // what the page cache had is done already
      arm();
    });
  }
  // Whatever the kernel says, nothing stays in the queue for ever: what it is too busy for is tried
  // again in the next turns, and fails in the end.
  void submit_or_fail() {
    const int error = submit();
    if (prepared_.empty()) {
      busy_turns_ = 0;
    } else if (is_passing(error) && ++busy_turns_ < attempts_max) {
      submit_soon();
    } else {
      busy_turns_ = 0;
      fail_prepared(error);
    }
  }
  // Returns the error for which something is left in the queue.
  int submit() {
    submitting_ = true;
    int error = 0;
    for (int attempt = 0; !prepared_.empty() && attempt < attempts_max;) {
      const int taken = io_uring_submit(&ring_);
      if (taken > 0) {
        prepared_.erase(prepared_.begin(), prepared_.begin() + taken);
        in_flight_ += static_cast<std::size_t>(taken);
        continue;
      }
      error = taken == 0 ? -EAGAIN : taken;
      if (!is_passing(error)) break;
      ++attempt;
      reap();  // completions may have to be taken first
    }
    submitting_ = false;
    return error;
  }
  static bool is_passing(int error) {
    return error == -EAGAIN || error == -EBUSY || error == -ENOMEM || error == -EINTR;
  }
  // What the kernel has not taken goes out of the queue, which only we write to.
  void fail_prepared(int error) {
    ring_.sq.sqe_head = ring_.sq.sqe_tail = *ring_.sq.khead;
    *ring_.sq.ktail = *ring_.sq.khead;
    const std::vector<Operation*> failed = std::exchange(prepared_, {});
    for (Operation* operation : failed) {
      operation->result = error;
      finish(*operation);
    }
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
        finish(*finished[i]);
      }
    }
  }
  void finish(Operation& operation) {
    // moved out first: the frame that holds the operation may end inside
    Operation::Handler handler = std::move(*operation.handler);
    operation.handler.reset();
    resume(std::move(handler));
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
  std::vector<Operation*> prepared_;  // what is in the queue and not submitted
  int busy_turns_ = 0;                // since the kernel last took something
  std::size_t in_flight_ = 0;         // submitted and not complete
  unsigned files_ = 0;
  bool made_ = false;
  bool enabled_ = false;
  bool submit_posted_ = false;
  bool submitting_ = false;
  bool armed_ = false;
};

class UringFile final : public PosixFile {
 public:
  UringFile(Ring& ring, CallThreads& threads, Shares& shares, OpenedFile opened)
      : PosixFile(threads, std::move(opened)), ring_(ring), share_(shares) {
    ring_.add_file();
  }
  ~UringFile() override { ring_.remove_file(); }

  SysTask<std::size_t> read(std::uint64_t offset, const Buffers& out) override {
    const auto spans = out.spans();
    auto prepare = [&](io_uring_sqe* entry) {
      io_uring_prep_readv(entry, descriptor(), as_iovecs(spans),
                          static_cast<unsigned>(span_count(spans)), offset);
    };
    co_return count_or_error(co_await perform(prepare, Waits::seldom));
  }
  SysTask<std::size_t> write(std::uint64_t offset, const ConstBuffers& data,
                             Durability durability) override {
    const auto spans = data.spans();
    auto prepare = [&](io_uring_sqe* entry) {
      io_uring_prep_writev2(entry, descriptor(), as_iovecs(spans),
                            static_cast<unsigned>(span_count(spans)), offset,
                            durability == Durability::synced ? RWF_DSYNC : 0);
    };
    co_return count_or_error(co_await perform(prepare, Waits::seldom));
  }
  SysTask<> sync() override {
    auto prepare = [&](io_uring_sqe* entry) {
      io_uring_prep_fsync(entry, descriptor(), IORING_FSYNC_DATASYNC);
    };
    co_return done_or_error(co_await perform(prepare, Waits::always));
  }
  SysTask<> fallocate(FallocateMode mode, Range range) override {
    auto prepare = [&](io_uring_sqe* entry) {
      io_uring_prep_fallocate(entry, descriptor(), fallocate_bits(mode),
                              static_cast<off_t>(range.offset), static_cast<off_t>(range.length));
    };
    co_return done_or_error(co_await perform(prepare, Waits::always));
  }
  SysTask<> will_need(Range range) override {
    // longer than the ring's 32 bits: the beginning is advice enough
    const auto length = static_cast<off_t>(std::min<std::uint64_t>(range.length, GiB));
    auto prepare = [&](io_uring_sqe* entry) {
      io_uring_prep_fadvise(entry, descriptor(), range.offset, length, POSIX_FADV_WILLNEED);
    };
    co_return done_or_error(co_await perform(prepare, Waits::always));
  }

 private:
  // Does the call keep a thread of the kernel's? Of a device, any may.
  enum class Waits : std::uint8_t { seldom, always };

  template <class Prepare>
  asio::awaitable<int> perform(Prepare& prepare, Waits waits) {
    if (is_quick() && waits == Waits::seldom) co_return co_await ring_.perform(prepare);
    const Share::Turn turn = co_await share_.enter();
    co_return co_await ring_.perform(prepare);
  }

  Ring& ring_;
  Share share_;
};

class UringEngine final : public Engine {
 public:
  explicit UringEngine(asio::io_context& worker) : ring_(worker) {}
  int make() { return ring_.make(); }

  std::string_view name() const override { return "io_uring"; }
  SysTask<std::unique_ptr<EngineFile>> open(const std::string& path, OpenFlags flags) override {
    SysResult<OpenedFile> opened = co_await open_on_thread(threads_, path, flags);
    if (!opened) co_return std::unexpected(opened.error());
    co_return file_of(*std::move(opened));
  }
  std::unique_ptr<EngineFile> take_over(std::unique_ptr<HandedFile> file) override {
    return file_of(std::move(static_cast<OpenedFile&>(*file)));
  }
  SysTask<> remove(const std::string& path) override { return remove_on_thread(threads_, path); }

 private:
  // A ring is no use for FUSE, NFS and the like: all their calls take a thread. And it does harm:
  // to find out, io_uring polls the file within the submission, and hangs there when they hang.
  std::unique_ptr<EngineFile> file_of(OpenedFile opened) {
    if (opened.kind == FileKind::regular && !opened.is_quick) {
      return std::make_unique<PosixFile>(threads_, std::move(opened));
    }
    return std::make_unique<UringFile>(ring_, threads_, shares_, std::move(opened));
  }

  Ring ring_;
  Shares shares_{share_max, share_max};
  CallThreads threads_;  // for what has to do with names, and calls that no ring takes
};

// Whether a ring can be had, and does what we need: tried, since a filter of system calls, a sysctl
// or an old kernel may each forbid another part of it.
int try_ring() {
  io_uring ring{};
  if (const int made = io_uring_queue_init(2, &ring, 0); made < 0) return made;
  int result = 0;
  const std::unique_ptr<io_uring_probe, decltype(&io_uring_free_probe)> known(
      io_uring_get_probe_ring(&ring), io_uring_free_probe);
  for (const int operation : {IORING_OP_READV, IORING_OP_WRITEV, IORING_OP_FSYNC,
                              IORING_OP_FALLOCATE, IORING_OP_FADVISE}) {
    if (!known || io_uring_opcode_supported(known.get(), operation) == 0) result = -ENOSYS;
  }
  if (io_uring_sqe* entry = result == 0 ? io_uring_get_sqe(&ring) : nullptr) {
    io_uring_prep_nop(entry);
    result = std::min(io_uring_submit_and_wait(&ring, 1), 0);
  }
  io_uring_queue_exit(&ring);
  return result;
}

}  // namespace

Result<std::unique_ptr<Engine>> make_uring_engine(asio::io_context& worker) {
  auto engine = std::make_unique<UringEngine>(worker);
  int result = try_ring();
  if (result == 0) result = engine->make();
  if (result < 0) {
    Error error = error_from_errno(-result, "io_uring");
    error.code = Errc::not_supported;
    return std::unexpected(std::move(error));
  }
  return engine;
}
