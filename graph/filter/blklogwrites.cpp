// blklogwrites.cpp - passes requests on, and logs what changes the disk in the format of Linux's
// dm-log-writes, so that the disk as it was at any moment can be made again: `./dev replay`. Keys,
// and the log of one request after the other, are those of QEMU's driver of this name.
//
// A change is logged when it has ended, before it is answered; a flush when all that it covers is
// in the log and durable below. FUA is logged as QEMU does it: a write, then a flush.
#include <array>

#include "graph/filter/filter.h"
#include "graph/filter/write_log.h"

namespace graph {
namespace {

constexpr std::array blklogwrites_options{
    OptionSpec{"file", Kind::node, "", "the node that is shown"},
    OptionSpec{"log", Kind::node, "", "the node that holds the log"},
    OptionSpec{"log-sector-size", Kind::bytes, "512", "unit of the log and of requests"},
    OptionSpec{"log-append", Kind::boolean, "false", "goes on behind the log that is there"},
    OptionSpec{"log-super-update-interval", Kind::integer, "4096",
               "entries after which the log's superblock is written; at a flush it always is"},
};

class BlkLogWrites final : public Filter {
 public:
  BlkLogWrites(Edge file, Edge log, LogEnd end, std::uint64_t interval)
      : Filter(std::move(file)), log_file_(std::move(log)), log_(log_file_, end, interval) {
    own(log_file_);
  }

  bool passes_bytes_on() const override { return false; }  // whole sectors, whatever the file takes
  Growth growth() const override { return file().node().can_grow() ? Growth::yes : Growth::never; }
  Limits own_limits() const override {
    Limits limits;  // the edge below does the rest, so that each request is one entry
    limits.request_alignment = static_cast<std::uint32_t>(log_.sector_size());
    limits.preferred = file().limits().preferred;
    limits.unaligned_tail_writes = file().limits().unaligned_tail_writes;
    limits.native_zeroes = true;
    return limits;
  }
  Result<> check_child_resize(const Edge& child, std::uint64_t size) const override {
    return &child == &log_file_ ? ok : Filter::check_child_resize(child, size);
  }

  Task<> write(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) override;
  Task<> write_zeroes(Range range, ZeroFlags flags) override;
  Task<> discard(Range range) override;
  Task<> resize(std::uint64_t size) override;
  Task<> flush_to_disk() override;
  Task<> close() override { return log_.close(); }

 private:
  // A failure of the log fails the request, at its first byte.
  static Result<> outcome(Result<> done, Result<> logged, std::uint64_t offset) {
    if (logged) return done;
    return std::unexpected(std::move(logged).error().at(offset));
  }
  Edge log_file_;
  WriteLog log_;
  std::uint64_t changes_ = 0;  // that have ended and are logged
  std::uint64_t flushed_ = 0;  // changes_ when the last flush began
};

// A change that failed may have happened in part: it is logged nevertheless.
Task<> BlkLogWrites::write(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) {
  Result<> done = co_await file().write(offset, data, flags);
  Result<> logged = co_await log_.add_write(offset, data);
  ++changes_;
  co_return outcome(std::move(done), std::move(logged), offset);
}

Task<> BlkLogWrites::write_zeroes(Range range, ZeroFlags flags) {
  Result<> done = co_await file().write_zeroes(range, flags);
  if (!done && done.error().code == Errc::not_supported) co_return done;  // Z-5: nothing changed
  Result<> logged = co_await log_.add_zeroes(range);
  ++changes_;
  co_return outcome(std::move(done), std::move(logged), range.offset);
}

Task<> BlkLogWrites::discard(Range range) {
  Result<> done = co_await file().discard(range);
  Result<> logged = co_await log_.add_discard(range);
  ++changes_;
  co_return outcome(std::move(done), std::move(logged), range.offset);
}

Task<> BlkLogWrites::resize(std::uint64_t size) {
  Result<> done = co_await file().resize(size);
  ++changes_;
  co_return done;
}

// One that failed has not happened, and one without a change before it says nothing.
Task<> BlkLogWrites::flush_to_disk() {
  if (flushed_ == changes_) co_return ok;
  const std::uint64_t covered = changes_;
  CO_CHECK(co_await file().flush());
  Result<> logged = co_await log_.add_flush();
  if (logged) flushed_ = covered;
  co_return outcome(ok, std::move(logged), 0);
}

Task<LogEnd> find_end(const OpenContext& context, Edge& log) {
  const OptionReader& options = context.options();
  if (options.boolean("log-append")) {
    if (options.has("log-sector-size")) {
      co_return context.blame(
          "log-sector-size",
          Error(Errc::invalid_argument, context.node_name() + ": 'log-append' takes the log's own "
                                                              "sector size, leave this out"));
    }
    auto found = co_await find_log_end(log);
    if (!found) co_return context.blame("log", std::move(found).error());
    co_return found;
  }
  LogEnd start;
  start.sector_size = options.bytes("log-sector-size");
  if (!is_power_of_two(start.sector_size) || start.sector_size < log_sector_size_min ||
      start.sector_size > log_sector_size_max) {
    co_return context.blame(
        "log-sector-size",
        Error(Errc::invalid_argument,
              context.node_name() + ": 'log-sector-size': " + std::to_string(start.sector_size) +
                  " is no power of two from 512 to 8388608"));
  }
  co_return start;
}

Task<std::unique_ptr<Node>> open_blklogwrites(OpenContext& context) {
  const std::int64_t interval = context.options().integer("log-super-update-interval");
  if (interval < 1) {
    co_return context.blame(
        "log-super-update-interval",
        Error(Errc::invalid_argument, context.node_name() + ": 'log-super-update-interval': " +
                                          std::to_string(interval) + " is less than 1"));
  }
  CO_TRY(Edge file, co_await context.attach("file", Role::filtered));
  // its rights are those of metadata: written by nobody else, and free to grow
  CO_TRY(Edge log, co_await context.attach("log", Role::metadata));
  CO_TRY(const LogEnd end, co_await find_end(context, log));
  co_return std::make_unique<BlkLogWrites>(std::move(file), std::move(log), end,
                                           static_cast<std::uint64_t>(interval));
}

}  // namespace

extern const Driver blklogwrites_driver{"blklogwrites", "logs every change, to be replayed",
                                        blklogwrites_options, open_blklogwrites, true};

}  // namespace graph
