#include "graph/filter/write_log.h"

#include <algorithm>
#include <utility>

namespace graph {
namespace {

Error wrong(const Edge& log, std::string what) {
  return {Errc::corrupt, log.node().name(), 0, log.node().name() + ": " + std::move(what)};
}

template <class Struct>
Task<Struct> read_struct(Edge& log, std::uint64_t offset) {
  Struct value;
  const Buffers out(std::as_writable_bytes(std::span(&value, 1)));
  CO_CHECK(co_await log.read(offset, out));
  co_return value;
}

bool is_sector_size(std::uint64_t size) {
  return is_power_of_two(size) && size >= log_sector_size_min && size <= log_sector_size_max;
}

}  // namespace

Task<LogEnd> find_log_end(Edge& log) {
  LogEnd end;
  if (log.size() == 0) co_return end;
  if (log.size() < sizeof(LogSuperblock))
    co_return std::unexpected(wrong(log, "is no log of writes"));
  CO_TRY(const LogSuperblock super, co_await read_struct<LogSuperblock>(log, 0));
  if (super.magic != log_magic) co_return std::unexpected(wrong(log, "is no log of writes"));
  if (super.version != log_version) {
    co_return std::unexpected(
        wrong(log, "log of writes: version " + std::to_string(super.version.get()) + " is not 1"));
  }
  end.sector_size = super.sector_size;
  if (!is_sector_size(end.sector_size)) {
    co_return std::unexpected(
        wrong(log, "log of writes: sectors of " + std::to_string(end.sector_size) + " bytes"));
  }
  const std::uint64_t sectors_max = log.size() / end.sector_size;
  while (end.entries < super.entries) {
    const std::string which = "log of writes: entry " + std::to_string(end.entries);
    if (end.next_sector >= sectors_max) {
      co_return std::unexpected(
          wrong(log, which + " of " + std::to_string(super.entries.get()) + " lies past the end"));
    }
    CO_TRY(const LogEntryHead head,
           co_await read_struct<LogEntryHead>(log, end.next_sector * end.sector_size));
    if ((head.flags & ~log_flags::all) != 0) {
      co_return std::unexpected(
          wrong(log, which + " has unknown flags " + std::to_string(head.flags.get())));
    }
    const std::uint64_t data = (head.flags & log_flags::discard) != 0 ? 0 : head.sectors.get();
    if (data > sectors_max - end.next_sector - 1) {
      co_return std::unexpected(
          wrong(log, which + " of " + std::to_string(data) + " sectors leaves it"));
    }
    end.next_sector += 1 + data;
    ++end.entries;
  }
  co_return end;
}

Task<> WriteLog::add_write(std::uint64_t offset, const ConstBuffers& data) {
  CO_CHECK(co_await begin());
  const std::uint64_t sectors = sectors_of(data.size());
  const Place place = reserve(sectors);
  const PooledBuffer head = head_of(0, {offset, data.size()});
  ConstBuffers list(head.bytes());
  list.add(data);
  const std::uint64_t rest = sectors * sector_size() - data.size();
  PooledBuffer padding;
  if (rest > 0) {
    padding = PooledBuffer(pool(), rest);
    std::ranges::fill(padding.bytes(), std::byte{0});
    list.add(std::as_const(padding).bytes());
  }
  Result<> written = co_await log_.write(place.offset, list);
  co_return co_await finish(place, 0, std::move(written));
}

Task<> WriteLog::add_zeroes(Range range) {
  CO_CHECK(co_await begin());
  const std::uint64_t sectors = sectors_of(range.length);
  const Place place = reserve(sectors);
  const PooledBuffer head = head_of(0, range);
  const ConstBuffers list(head.bytes());
  Result<> written = co_await log_.write(place.offset, list);
  if (written) {
    ZeroFlags flags;
    flags.may_unmap = true;
    const Range zeroes{place.offset + sector_size(), sectors * sector_size()};
    written = co_await log_.write_zeroes(zeroes, flags);
  }
  co_return co_await finish(place, 0, std::move(written));
}

Task<> WriteLog::add_discard(Range range) {
  CO_CHECK(co_await begin());
  const Place place = reserve(0);
  const PooledBuffer head = head_of(log_flags::discard, range);
  const ConstBuffers list(head.bytes());
  Result<> written = co_await log_.write(place.offset, list);
  co_return co_await finish(place, log_flags::discard, std::move(written));
}

Task<> WriteLog::add_flush() {
  CO_CHECK(co_await begin());
  const Place place = reserve(0);
  const PooledBuffer head = head_of(log_flags::flush, {});
  const ConstBuffers list(head.bytes());
  Result<> written = co_await log_.write(place.offset, list);
  co_return co_await finish(place, log_flags::flush, std::move(written));
}

Task<> WriteLog::close() {
  if (broken_ || recorded_ == end_.entries) co_return ok;
  co_return co_await record(end_.entries);
}

// What the node holds from earlier days must not look like a log that ours overwrites.
Task<> WriteLog::begin() {
  while (recording_ && !begun_) co_await changed_.wait();
  CO_CHECK(check());
  if (begun_) co_return ok;
  recording_ = true;
  Result<> written = co_await write_superblock(0);
  recording_ = false;
  begun_ = true;
  broken_ = !written;
  changed_.notify_all();
  co_return written;
}

Result<> WriteLog::check() const {
  if (!broken_) return ok;
  return failure(Errc::io_error, log_.node().name() +
                                     ": the log of writes has a gap, since a write to it failed: "
                                     "begin a new one");
}

WriteLog::Place WriteLog::reserve(std::uint64_t data_sectors) {
  const Place place{end_.entries, end_.next_sector * sector_size()};
  ++end_.entries;
  end_.next_sector += 1 + data_sectors;
  pending_.insert(place.number);
  return place;
}

PooledBuffer WriteLog::head_of(std::uint64_t flags, Range range) const {
  PooledBuffer sector(pool(), sector_size());
  std::ranges::fill(sector.bytes(), std::byte{0});
  LogEntryHead head;
  head.sector = range.offset / sector_size();
  head.sectors = sectors_of(range.length);
  head.flags = flags;
  std::ranges::copy(bytes_of(head), sector.bytes().begin());
  return sector;
}

Task<> WriteLog::finish(Place place, std::uint64_t flags, Result<> written) {
  pending_.erase(place.number);
  if (!written) broken_ = true;
  changed_.notify_all();
  if (!written) co_return written;
  const std::uint64_t entries = place.number + 1;
  if ((flags & log_flags::flush) == 0 && entries % interval_ != 0) co_return ok;
  co_return co_await record(entries);
}

// Waits for those before, which may still be under way.
Task<> WriteLog::record(std::uint64_t entries) {
  for (;;) {
    CO_CHECK(check());
    if (recorded_ >= entries) co_return ok;
    if (!recording_ && complete() >= entries) break;
    co_await changed_.wait();
  }
  recording_ = true;
  const std::uint64_t counted = complete();
  Result<> written = co_await log_.flush();
  if (written) written = co_await write_superblock(counted);
  recording_ = false;
  if (written) recorded_ = counted;
  if (!written) broken_ = true;
  changed_.notify_all();
  co_return written;
}

Task<> WriteLog::write_superblock(std::uint64_t entries) {
  PooledBuffer sector(pool(), sector_size());
  std::ranges::fill(sector.bytes(), std::byte{0});
  LogSuperblock super;
  super.magic = log_magic;
  super.version = log_version;
  super.entries = entries;
  super.sector_size = static_cast<std::uint32_t>(sector_size());
  std::ranges::copy(bytes_of(super), sector.bytes().begin());
  const ConstBuffers list(std::as_const(sector).bytes());
  CO_CHECK(co_await log_.write(0, list));
  co_return co_await log_.flush();
}

}  // namespace graph
