#include "graph/base/posix_file.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cerrno>

#include "graph/base/block_device.h"

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

namespace {

std::unexpected<Errno> last_error() { return std::unexpected(Errno{errno}); }
SysResult<> done_or_error(int result) {
  if (result < 0) return last_error();
  return {};
}
SysResult<std::size_t> count_or_error(ssize_t result) {
  if (result < 0) return last_error();
  return static_cast<std::size_t>(result);
}

bool is_quick_file_system(unsigned long type) {
  switch (type) {
    case EXT4_SUPER_MAGIC:
    case XFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case TMPFS_MAGIC:
      return true;
    default:
      return false;
  }
}

int open_bits(OpenFlags flags) {
  int bits = O_CLOEXEC | O_NOCTTY;
  bits |= flags.access == FileAccess::read_write ? O_RDWR : O_RDONLY;
  if (flags.caching == Caching::direct) bits |= O_DIRECT;
  if (flags.creation == Creation::exclusive) bits |= O_CREAT | O_EXCL;
  return bits;
}

FileKind kind_of(mode_t mode) {
  if (S_ISREG(mode)) return FileKind::regular;
  return S_ISBLK(mode) ? FileKind::block_device : FileKind::other;
}

std::uint32_t direct_alignment(const struct statx& found, std::uint32_t device_block) {
  const std::uint32_t most = std::max(found.stx_dio_offset_align, found.stx_dio_mem_align);
  const bool known = (found.stx_mask & STATX_DIOALIGN) != 0 && most != 0;
  if (known && is_power_of_two(most)) return std::max({most, 512U, device_block});
  constexpr std::uint32_t safe = 4096;
  return device_block > 1 ? std::max(device_block, 512U) : safe;
}

SysResult<FileStatus> examine(int file, bool is_quick) {
  struct statx found{};
  if (::statx(file, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_DIOALIGN, &found) < 0) {
    return last_error();
  }
  FileStatus status;
  status.size = found.stx_size;
  status.allocated = found.stx_blocks * 512;
  status.kind = kind_of(found.stx_mode);
  status.is_quick = is_quick;
  status.preferred_block = found.stx_blksize;
  if (status.kind == FileKind::block_device) {
    if (SysResult<> device = examine_device(file, status); !device) {
      return std::unexpected(device.error());
    }
  }
  status.direct_alignment = direct_alignment(found, status.device_block);
  return status;
}

struct flock one_byte(short type, std::uint64_t byte) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(byte);
  lock.l_len = 1;
  return lock;
}

SysResult<OpenedFile> open_file(const std::string& path, OpenFlags flags) {
  OpenedFile opened;
  opened.flags = flags;
  // O_NONBLOCK, for a FIFO would wait for its other end; not longer, or reads fail with EAGAIN
  opened.descriptor = FileDescriptor(::open(path.c_str(), open_bits(flags) | O_NONBLOCK, 0666));
  const int number = opened.descriptor.number();
  struct statfs system{};
  struct stat found{};
  if (number < 0 || ::fcntl(number, F_SETFL, ::fcntl(number, F_GETFL) & ~O_NONBLOCK) < 0 ||
      ::fstatfs(number, &system) < 0 || ::fstat(number, &found) < 0) {
    return last_error();
  }
  opened.kind = kind_of(found.st_mode);
  if (opened.kind == FileKind::regular) {  // of a device, this is where its name stands
    const auto type = static_cast<unsigned long>(system.f_type);
    opened.is_quick = is_quick_file_system(type);
    opened.is_in_memory = type == TMPFS_MAGIC;
  }
  return opened;
}

}  // namespace

// A share for each: who opens a file has none of it yet.
SysTask<OpenedFile> open_on_thread(CallThreads& threads, std::string path, OpenFlags flags) {
  Share share(threads.shares());
  const auto open = [&path, flags] { return open_file(path, flags); };
  co_return co_await threads.run(share, open);
}

SysTask<> remove_on_thread(CallThreads& threads, std::string path) {
  Share share(threads.shares());
  const auto remove = [&path] { return done_or_error(::unlink(path.c_str())); };
  co_return co_await threads.run(share, remove);
}

int fallocate_bits(FallocateMode mode) {
  switch (mode) {
    case FallocateMode::allocate:
      return 0;
    case FallocateMode::punch_hole:
      return FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    case FallocateMode::zero_range:
      return FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
  }
  return 0;
}

template <class Call>
asio::awaitable<std::invoke_result_t<Call&>> PosixFile::call(Call function) {
  return threads_.run(share_, std::move(function));
}

SysResult<std::size_t> PosixFile::read_now(std::uint64_t offset, const Buffers& out) {
  // tmpfs knows no RWF_NOWAIT, and is memory
  const int flags = opened_.is_in_memory ? 0 : RWF_NOWAIT;
  const auto spans = out.spans();
  return count_or_error(::preadv2(descriptor(), as_iovecs(spans), span_count(spans),
                                  static_cast<off_t>(offset), flags));
}

SysResult<std::size_t> PosixFile::write_now(std::uint64_t offset, const ConstBuffers& data) {
  const auto spans = data.spans();
  return count_or_error(
      ::pwritev(descriptor(), as_iovecs(spans), span_count(spans), static_cast<off_t>(offset)));
}

SysTask<std::size_t> PosixFile::read(std::uint64_t offset, const Buffers& out) {
  return call([file = descriptor(), offset, &out] {
    const auto spans = out.spans();
    return count_or_error(
        ::preadv(file, as_iovecs(spans), span_count(spans), static_cast<off_t>(offset)));
  });
}

SysTask<std::size_t> PosixFile::write(std::uint64_t offset, const ConstBuffers& data,
                                      Durability durability) {
  return call([file = descriptor(), offset, &data, durability] {
    const auto spans = data.spans();
    return count_or_error(::pwritev2(file, as_iovecs(spans), span_count(spans),
                                     static_cast<off_t>(offset),
                                     durability == Durability::synced ? RWF_DSYNC : 0));
  });
}

SysTask<> PosixFile::sync() {
  return call([file = descriptor()] { return done_or_error(::fdatasync(file)); });
}

SysTask<> PosixFile::fallocate(FallocateMode mode, Range range) {
  return call([file = descriptor(), mode, range] {
    return done_or_error(::fallocate(file, fallocate_bits(mode), static_cast<off_t>(range.offset),
                                     static_cast<off_t>(range.length)));
  });
}

SysTask<> PosixFile::device_call(DeviceCall what, Range range) {
  return call([file = descriptor(), what, range] { return call_device(file, what, range); });
}

SysTask<> PosixFile::will_need(Range range) {
  return call([file = descriptor(), range]() -> SysResult<> {
    const int error = ::posix_fadvise(file, static_cast<off_t>(range.offset),
                                      static_cast<off_t>(range.length), POSIX_FADV_WILLNEED);
    if (error != 0) return std::unexpected(Errno{error});
    return {};
  });
}

SysTask<> PosixFile::truncate(std::uint64_t size) {
  const auto cut = [file = descriptor(), size] {
    return done_or_error(::ftruncate(file, static_cast<off_t>(size)));
  };
  if (is_quick()) co_return cut();
  co_return co_await call(cut);
}

SysTask<std::uint64_t> PosixFile::seek(Seek what, std::uint64_t offset) {
  const auto find = [file = descriptor(), what, offset]() -> SysResult<std::uint64_t> {
    const off_t found =
        ::lseek(file, static_cast<off_t>(offset), what == Seek::data ? SEEK_DATA : SEEK_HOLE);
    if (found < 0) return last_error();
    return static_cast<std::uint64_t>(found);
  };
  if (is_quick()) co_return find();
  co_return co_await call(find);
}

SysTask<FileStatus> PosixFile::status() {
  const auto ask = [file = descriptor(), quick = is_quick()] { return examine(file, quick); };
  if (is_quick()) co_return ask();
  co_return co_await call(ask);
}

std::string PosixFile::own_path() const { return "/proc/self/fd/" + std::to_string(descriptor()); }

SysTask<> PosixFile::prepare_reopen(FileAccess access) {
  OpenFlags flags = opened_.flags;
  flags.access = access;
  flags.creation = Creation::never;
  const auto open = [path = own_path(), flags]() -> SysResult<FileDescriptor> {
    FileDescriptor file(::open(path.c_str(), open_bits(flags)));
    if (!file) return last_error();
    return file;
  };
  SysResult<FileDescriptor> reopened = co_await call(open);
  if (!reopened) co_return std::unexpected(reopened.error());
  other_ = *std::move(reopened);
  co_return SysResult<>();
}

void PosixFile::commit_reopen() {
  if (other_) opened_.descriptor = std::move(other_);
}

SysResult<> PosixFile::open_locks() {
  if (opened_.locks) return {};
  opened_.locks = FileDescriptor(::open(own_path().c_str(), O_RDONLY | O_CLOEXEC));
  if (!opened_.locks) return last_error();
  return {};
}

SysResult<> PosixFile::set_lock(short type, std::uint64_t byte) {
  if (SysResult<> opened = open_locks(); !opened) return opened;
  struct flock wanted = one_byte(type, byte);
  return done_or_error(::fcntl(opened_.locks.number(), F_OFD_SETLK, &wanted));
}

SysResult<> PosixFile::lock(std::uint64_t byte) { return set_lock(F_RDLCK, byte); }
SysResult<> PosixFile::unlock(std::uint64_t byte) { return set_lock(F_UNLCK, byte); }

SysResult<bool> PosixFile::is_locked(std::uint64_t byte) {
  if (SysResult<> opened = open_locks(); !opened) return std::unexpected(opened.error());
  struct flock wanted = one_byte(F_WRLCK, byte);
  if (::fcntl(opened_.locks.number(), F_OFD_GETLK, &wanted) < 0) return last_error();
  return wanted.l_type != F_UNLCK;
}

SysTask<> PosixFile::close() {
  opened_.locks.reset();
  other_.reset();
  const auto end = [number = opened_.descriptor.release()] {
    return done_or_error(::close(number));
  };
  co_return co_await call(end);
}
