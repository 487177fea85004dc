// write_log.h - a log of writes in the format of Linux's dm-log-writes, kept in a node.
// Spec: Linux, Documentation/admin-guide/device-mapper/log-writes.rst; struct layouts as in
// drivers/md/dm-log-writes.c, all little-endian.
//
// Sector 0 holds the superblock. Entries follow, each a sector with its head, then its data: none
// for a discard, flush or mark; the text of a mark stands behind the head, in its sector. The
// superblock counts entries that are wholly on the medium of the log, all those before included:
// whatever was being written when the power went, what is counted can be replayed.
#pragma once

#include <cstdint>
#include <set>

#include "graph/base/buffer.h"
#include "graph/base/bytes.h"
#include "graph/base/wait_queue.h"
#include "graph/edge.h"

namespace graph {

inline constexpr std::uint64_t log_magic = 0x6a736677736872;
inline constexpr std::uint64_t log_version = 1;
inline constexpr std::uint64_t log_sector_size_min = 512;
inline constexpr std::uint64_t log_sector_size_max = 8 * MiB;

struct LogSuperblock {
  Le<std::uint64_t> magic;
  Le<std::uint64_t> version;
  Le<std::uint64_t> entries;
  Le<std::uint32_t> sector_size;  // bytes
};
static_assert(sizeof(LogSuperblock) == 28 && alignof(LogSuperblock) == 1);

namespace log_flags {
inline constexpr std::uint64_t flush = 1;
inline constexpr std::uint64_t fua = 2;
inline constexpr std::uint64_t discard = 4;
inline constexpr std::uint64_t mark = 8;
inline constexpr std::uint64_t all = flush | fua | discard | mark;
}  // namespace log_flags

struct LogEntryHead {
  Le<std::uint64_t> sector;   // of the disk
  Le<std::uint64_t> sectors;  // as many follow, but for a discard
  Le<std::uint64_t> flags;    // log_flags
  Le<std::uint64_t> text_length;
};
static_assert(sizeof(LogEntryHead) == 32 && alignof(LogEntryHead) == 1);

// Where a log ends.
struct LogEnd {
  std::uint64_t sector_size = log_sector_size_min;
  std::uint64_t entries = 0;
  std::uint64_t next_sector = 1;
};

// The end of the log that `log` holds; of an empty one where `log` has no bytes.
// Errors: corrupt, what is wrong with it; as reading.
Task<LogEnd> find_log_end(Edge& log);

class WriteLog {
 public:
  // Entries go behind `end`; an `end` without any begins a new log. The superblock is written at a
  // flush and with every `interval` entries. Lifetime: `log` outlives it.
  WriteLog(Edge& log, LogEnd end, std::uint64_t interval)
      : log_(log),
        end_(end),
        interval_(interval),
        recorded_(end.entries),
        begun_(end.entries > 0) {}

  std::uint64_t sector_size() const { return end_.sector_size; }

  // All of these: Requires: offsets are multiples of the sector size; a length that is none ends
  // in zeroes in the log. Errors: what the log's node says, and io_error for ever after: a log with
  // a gap is none.
  Task<> add_write(std::uint64_t offset, const ConstBuffers& data);
  Task<> add_zeroes(Range range);
  Task<> add_discard(Range range);
  // The log is durable up to here when it returns.
  Task<> add_flush();
  // Counts all that was added in the superblock.
  Task<> close();

 private:
  struct Place {
    std::uint64_t number;  // of the entry, from 0
    std::uint64_t offset;  // of its head
  };
  std::uint64_t sectors_of(std::uint64_t length) const {
    return align_up(length, end_.sector_size) / end_.sector_size;
  }
  Task<> begin();
  Result<> check() const;
  Place reserve(std::uint64_t data_sectors);
  PooledBuffer head_of(std::uint64_t flags, Range range) const;
  Task<> finish(Place place, std::uint64_t flags, Result<> written);
  // Entries before this one are all written.
  std::uint64_t complete() const { return pending_.empty() ? end_.entries : *pending_.begin(); }
  Task<> record(std::uint64_t entries);
  Task<> write_superblock(std::uint64_t entries);

  Edge& log_;
  BufferPool& pool() const { return log_.node().home().buffers; }
  LogEnd end_;
  const std::uint64_t interval_;     // entries
  std::set<std::uint64_t> pending_;  // entries that are being written
  std::uint64_t recorded_;           // entries that the superblock counts
  bool begun_;                       // the superblock is this log's
  bool recording_ = false;
  bool broken_ = false;
  WaitQueue changed_;
};

}  // namespace graph
