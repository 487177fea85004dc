// engine.h - every call that a file needs from the system, as one seam: implemented by io_uring or
// by threads in the daemon (engines.h) and by a simulated disk in tests. It adds nothing to what
// the kernel does: short counts stay short, errors are errno numbers. What to make of them is the
// file node's affair.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <string>

#include "graph/base/buffer.h"
#include "graph/base/bytes.h"
#include "graph/base/task.h"

// An errno number. EAGAIN from a `_now` call means: can't be done without waiting.
struct Errno {
  int number;
};
template <class T = void>
using SysResult = std::expected<T, Errno>;
template <class T = void>
using SysTask = asio::awaitable<SysResult<T>>;

enum class FileAccess : std::uint8_t { read_only, read_write };
enum class Caching : std::uint8_t { buffered, direct };
enum class Creation : std::uint8_t { never, exclusive };  // exclusive: fails with EEXIST
enum class Durability : std::uint8_t { cached, synced };
enum class FallocateMode : std::uint8_t {
  allocate,    // provision, keep content; grows the file
  punch_hole,  // deallocate; reads zero; keeps the size
  zero_range,  // reads zero, stays provisioned; keeps the size
};
// What only a block device does. Offset and length are multiples of its block size.
enum class DeviceCall : std::uint8_t {
  discard,   // BLKDISCARD: the content becomes anything
  zero_out,  // BLKZEROOUT: reads zero, stays provisioned; writes zeroes where the device can't
};
enum class Seek : std::uint8_t { data, hole };
enum class FileKind : std::uint8_t { regular, block_device, other };

struct OpenFlags {
  FileAccess access = FileAccess::read_only;
  Caching caching = Caching::buffered;
  Creation creation = Creation::never;
};

struct FileStatus {
  std::uint64_t size = 0;       // bytes
  std::uint64_t allocated = 0;  // bytes of the medium in use
  FileKind kind = FileKind::regular;
  // The file system is known never to block a cached access for long (ext4, xfs, btrfs, tmpfs):
  // calls that move no data may be made inline.
  bool is_quick = false;
  std::uint32_t direct_alignment = 1;  // what O_DIRECT asks of offsets and lengths; a power of two
  std::uint32_t preferred_block = 4096;
  std::uint32_t device_block = 1;  // of a block device: its logical block, in bytes
  // DeviceCall::zero_out does not have to write the zeroes.
  bool zeroes_quickly = false;
};

// A file on its way from one engine to another of its kind: what it is made of, for nobody to use.
class HandedFile {
 public:
  virtual ~HandedFile() = default;
};

class EngineFile {
 public:
  virtual ~EngineFile() = default;

  // May be short. read_now never waits: EAGAIN when it would have to, EOPNOTSUPP when the file
  // never lets it. write_now puts the data into the page cache, which seldom takes long where
  // FileStatus::is_quick.
  virtual SysResult<std::size_t> read_now(std::uint64_t offset, const Buffers& out) = 0;
  virtual SysResult<std::size_t> write_now(std::uint64_t offset, const ConstBuffers& data) = 0;

  // 0 means end of file. May be short anywhere.
  virtual SysTask<std::size_t> read(std::uint64_t offset, const Buffers& out) = 0;
  virtual SysTask<std::size_t> write(std::uint64_t offset, const ConstBuffers& data,
                                     Durability durability) = 0;
  virtual SysTask<> sync() = 0;  // fdatasync
  virtual SysTask<> fallocate(FallocateMode mode, Range range) = 0;
  virtual SysTask<> device_call(DeviceCall call, Range range) = 0;
  virtual SysTask<> truncate(std::uint64_t size) = 0;
  // The next data or hole at or after `offset`. ENXIO: none before the end of the file.
  virtual SysTask<std::uint64_t> seek(Seek what, std::uint64_t offset) = 0;
  virtual SysTask<FileStatus> status() = 0;
  virtual SysTask<> will_need(Range range) = 0;  // brings it into the page cache

  // Opens the very same file a second time with `access`; the locks stay as they are. Then either
  // commit_reopen(), with nothing in flight, makes the new descriptor the one that is used, or
  // abort_reopen() drops it. Both do nothing where nothing was prepared.
  virtual SysTask<> prepare_reopen(FileAccess access) = 0;
  virtual void commit_reopen() = 0;
  virtual void abort_reopen() = 0;

  // Advisory byte locks, shared, owned by this file's own lock descriptor: they are gone when the
  // file is. Not through a ring: a registered file keeps its locks for a while after the process
  // has gone.
  virtual SysResult<> lock(std::uint64_t byte) = 0;
  virtual SysResult<> unlock(std::uint64_t byte) = 0;
  // True when somebody else holds a lock on `byte`, one that would stop an exclusive lock.
  virtual SysResult<bool> is_locked(std::uint64_t byte) = 0;

  // Takes the file, locks and all, out of its engine, for Engine::take_over(). After this, nothing
  // may be called. Requires: nothing is in flight.
  virtual std::unique_ptr<HandedFile> hand_over() = 0;
  // After this, nothing may be called. EIO and the like: what was written may be lost.
  virtual SysTask<> close() = 0;
};

class Engine {
 public:
  virtual ~Engine() = default;
  // Completes "files are read and written by ...".
  virtual std::string_view name() const = 0;
  virtual SysTask<std::unique_ptr<EngineFile>> open(const std::string& path, OpenFlags flags) = 0;
  // Requires: an engine of the same kind has handed it over.
  virtual std::unique_ptr<EngineFile> take_over(std::unique_ptr<HandedFile> file) = 0;
  virtual SysTask<> remove(const std::string& path) = 0;
};
