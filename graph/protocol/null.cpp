// null.cpp - a disk that swallows writes and reads as zeroes: what a benchmark of everything else
// runs against.
#include <array>

#include "graph/driver.h"
#include "graph/protocol/protocol.h"

namespace graph {
namespace {

constexpr std::array null_options{
    OptionSpec{"size", Kind::bytes, "1G", "size of the disk"},
    OptionSpec{"latency", Kind::duration, "0s", "how long each read, write and flush takes"},
    // QEMU's default is false; but memory that nobody filled must not go on a wire.
    OptionSpec{"read-zeroes", Kind::boolean, "true",
               "reads give zeroes; without it they give whatever is in the buffer of the daemon's"},
};

struct NullSettings {
  std::uint64_t size = 0;
  Clock::Duration latency{};
  bool read_zeroes = true;
};

class Null final : public Protocol {
 public:
  explicit Null(NullSettings settings) : settings_(settings) {}

  std::uint64_t own_size() const override { return settings_.size; }
  Growth growth() const override { return Growth::never; }
  std::string detail() const override { return format_bytes(settings_.size); }

  Task<> read(std::uint64_t, const Buffers& out) override {
    if (settings_.read_zeroes) fill_zero(out);
    return pause();
  }
  Task<> write(std::uint64_t, const ConstBuffers&, WriteFlags) override { return pause(); }
  Task<> write_zeroes(Range, ZeroFlags) override { return pause(); }
  Task<> discard(Range) override { return succeeded(); }
  Task<> flush_to_disk() override { return pause(); }
  Task<> prefetch(Range) override { return succeeded(); }
  Task<Extents> map(Range range, MapDepth) override {
    Extents extents;
    Extent extent;
    extent.length = range.length;
    extent.kind = settings_.read_zeroes ? ExtentKind::zero : ExtentKind::data;
    extent.allocated = extent.settled = true;
    extent.offset = range.offset;
    extents.list.push_back(extent);
    co_return std::move(extents);
  }
  Limits own_limits() const override {
    Limits limits;
    limits.native_fua = limits.native_zeroes = true;
    return limits;
  }

 private:
  Task<> pause() {
    if (settings_.latency == Clock::Duration{}) return succeeded();
    return slow();
  }
  Task<> slow() {
    const std::unique_ptr<Timer> timer = home().clock.timer(settings_.latency);
    co_await timer->wait();
    co_return ok;
  }
  const NullSettings settings_;
};

Task<std::unique_ptr<Node>> open_null(OpenContext& context) {
  NullSettings settings;
  settings.size = context.options().bytes("size");
  settings.latency =
      Clock::Duration(static_cast<std::int64_t>(context.options().duration_ns("latency")));
  settings.read_zeroes = context.options().boolean("read-zeroes");
  co_return std::make_unique<Null>(settings);
}

}  // namespace

extern const Driver null_co_driver{"null-co", "swallows writes, reads as zeroes", null_options,
                                   open_null};

}  // namespace graph
