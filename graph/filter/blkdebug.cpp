// blkdebug.cpp - passes requests on, and makes those fail, or stop, that its rules name: faults on
// purpose. It can also ask for larger units and shorter requests than its child, so that what lies
// between (request_path.cpp) is exercised. Keys and meaning are QEMU's.
#include <array>
#include <cerrno>
#include <list>
#include <vector>

#include "graph/base/wait_queue.h"
#include "graph/filter/breakpoints.h"
#include "graph/filter/fault_config.h"
#include "graph/filter/fault_rules.h"
#include "graph/filter/filter.h"
#include "graph/filter/wanted_limits.h"

namespace graph {
namespace {

constexpr std::string_view permission_names = "consistent-read|write|write-unchanged|resize";

constexpr std::array blkdebug_options{
    OptionSpec{"image", Kind::node, "", "the node that is shown"},
    OptionSpec{"config", Kind::path, "", "a file with more rules, in QEMU's syntax"},
    OptionSpec{"align", Kind::bytes, "0", "smallest unit of a request; 0: as the image"},
    OptionSpec{"max-transfer", Kind::bytes, "0", "longest read or write; 0: as the image"},
    OptionSpec{"opt-write-zero", Kind::bytes, "0", "unit of write-zeroes; 0: as the image"},
    OptionSpec{"max-write-zero", Kind::bytes, "0", "longest write-zeroes; 0: as the image"},
    OptionSpec{"opt-discard", Kind::bytes, "0", "unit of a discard; 0: as the image"},
    OptionSpec{"max-discard", Kind::bytes, "0", "longest discard; 0: as the image"},
    OptionSpec{"take-child-perms", Kind::words, "", "rights that it takes on the image for itself",
               permission_names},
    OptionSpec{"unshare-child-perms", Kind::words, "",
               "rights on the image that it shares with nobody", permission_names},
    inject_error_spec,
    set_state_spec,
};

class BlkDebug final : public Filter, public Breakpoints {
 public:
  BlkDebug(Edge image, FaultRules rules, WantedLimits limits, Access rights)
      : Filter(std::move(image)), rules_(std::move(rules)), wanted_(limits), rights_(rights) {
    rules_.meet(DebugEvent::none);
  }

  Task<> read(std::uint64_t offset, const Buffers& out) override {
    const auto fault = strike(IoType::read, {offset, out.size()});
    if (fault) [[unlikely]]
      return fail(*fault, offset);
    return file().read(offset, out);
  }
  Task<> write(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) override {
    const auto fault = strike(IoType::write, {offset, data.size()});
    if (fault) [[unlikely]]
      return fail(*fault, offset);
    return file().write(offset, data, flags);
  }
  Task<> write_zeroes(Range range, ZeroFlags flags) override {
    const auto fault = strike(IoType::write_zeroes, range);
    if (fault) [[unlikely]]
      return fail(*fault, range.offset);
    return file().write_zeroes(range, flags);
  }
  Task<> discard(Range range) override {
    if (range.length < wanted_.opt_discard) {
      return failed(fault(Errc::not_supported, range.offset, "blkdebug: less than opt-discard"));
    }
    const auto fault = strike(IoType::discard, range);
    if (fault) [[unlikely]]
      return fail(*fault, range.offset);
    return file().discard(range);
  }
  Task<> flush_to_disk() override {
    const auto fault = strike(IoType::flush, {});
    if (fault) [[unlikely]]
      return fail(*fault, 0);
    return succeeded();
  }
  Task<Extents> map(Range range, MapDepth depth) override {
    const auto fault = strike(IoType::block_status, range);
    if (fault) [[unlikely]]
      return fail_to_map(*fault, range.offset);
    return file().map(range, depth);
  }

  Limits own_limits() const override { return wanted_.over(Filter::own_limits()); }
  Access access_to(const Edge& child, Access own) const override {
    const Access usual = Filter::access_to(child, own);
    return {usual.taken | rights_.taken, usual.shared & rights_.shared};
  }

  bool wants_events() const override { return true; }
  asio::awaitable<void> meet(DebugEvent event) override;
  void suspend_at(DebugEvent event, std::string tag) override {
    breakpoints_.push_back({event, std::move(tag)});
  }
  bool is_suspended(std::string_view tag) const override;
  asio::awaitable<void> wait_suspended(std::string tag) override {
    while (!is_suspended(tag)) co_await stopped_.wait();
  }
  Result<> resume(std::string_view tag) override;
  Result<> remove_breakpoint(std::string_view tag) override;

 private:
  struct Breakpoint {
    DebugEvent event;
    std::string tag;
  };
  struct Stop {
    std::string tag;
    bool over = false;
  };

  std::optional<Fault> strike(IoType type, Range range) {
    if (!rules_.armed()) [[likely]]
      return std::nullopt;
    return rules_.strike(type, range);
  }
  Error error_of(const Fault& fault, std::uint64_t offset) const {
    Error error = error_from_errno(fault.error_number, name() + ": blkdebug: injected");
    error.node = name();
    error.offset = offset;
    return error;
  }
  Task<> fail(Fault fault, std::uint64_t offset) const {
    if (fault.when == Promptness::later) co_await yield();
    co_return std::unexpected(error_of(fault, offset));
  }
  Task<Extents> fail_to_map(Fault fault, std::uint64_t offset) const {
    if (fault.when == Promptness::later) co_await yield();
    co_return std::unexpected(error_of(fault, offset));
  }

  FaultRules rules_;
  const WantedLimits wanted_;
  const Access rights_;  // beside what users of the node need
  std::list<Breakpoint> breakpoints_;
  std::list<Stop> stops_;  // requests that wait, in order of arrival
  WaitQueue stopped_;
  WaitQueue resumed_;
};

asio::awaitable<void> BlkDebug::meet(DebugEvent event) {
  rules_.meet(event);
  std::vector<std::list<Stop>::iterator> mine;  // more than one tag may name the event
  for (auto point = breakpoints_.begin(); point != breakpoints_.end();) {
    if (point->event != event) {
      ++point;
      continue;
    }
    mine.push_back(stops_.insert(stops_.end(), {std::move(point->tag)}));
    point = breakpoints_.erase(point);
  }
  if (mine.empty()) co_return;
  stopped_.notify_all();
  for (const auto& stop : mine) {
    while (!stop->over) co_await resumed_.wait();
    stops_.erase(stop);
  }
}

bool BlkDebug::is_suspended(std::string_view tag) const {
  return std::ranges::any_of(stops_,
                             [&](const Stop& stop) { return stop.tag == tag && !stop.over; });
}

Result<> BlkDebug::resume(std::string_view tag) {
  const auto stop =
      std::ranges::find_if(stops_, [&](const Stop& each) { return each.tag == tag && !each.over; });
  if (stop == stops_.end()) {
    return std::unexpected(
        fault(Errc::invalid_argument, 0, "nothing is suspended at '" + std::string(tag) + "'"));
  }
  stop->over = true;
  resumed_.notify_all();
  return ok;
}

Result<> BlkDebug::remove_breakpoint(std::string_view tag) {
  bool found = std::erase_if(breakpoints_, [&](const auto& each) { return each.tag == tag; }) > 0;
  while (resume(tag)) found = true;
  if (found) return ok;
  return std::unexpected(
      fault(Errc::invalid_argument, 0, "there is no breakpoint '" + std::string(tag) + "'"));
}

// Reads a whole file of rules.
// Errors: what the system says; invalid_argument when it is longer than anybody types.
Task<std::string> read_text(Engine& engine, const std::string& path) {
  constexpr std::size_t length_max = 1 * MiB;
  auto opened = co_await engine.open(path, OpenFlags{});
  if (!opened) co_return std::unexpected(error_from_errno(opened.error().number, path));
  EngineFile& file = **opened;
  std::string text(length_max + 1, '\0');
  std::size_t length = 0;
  int wrong = 0;
  while (length < text.size()) {
    const Buffers rest(std::as_writable_bytes(std::span(text)).subspan(length));
    const auto got = co_await file.read(length, rest);
    if (!got && got.error().number == EINTR) continue;
    if (!got) wrong = got.error().number;
    if (!got || *got == 0) break;
    length += *got;
  }
  (void)co_await file.close();
  if (wrong != 0) co_return std::unexpected(error_from_errno(wrong, path));
  if (length > length_max) {
    co_return failure(Errc::invalid_argument, path + ": longer than " + format_bytes(length_max));
  }
  text.resize(length);
  co_return std::move(text);
}

Permissions permissions_of(const std::vector<std::string>& names) {
  Permissions all;
  for (const std::string& name : names) {
    if (name == "consistent-read") all = all | Permission::consistent_read;
    if (name == "write") all = all | Permission::write;
    if (name == "write-unchanged") all = all | Permission::write_unchanged;
    if (name == "resize") all = all | Permission::resize;
  }
  return all;
}

Task<std::unique_ptr<Node>> open_blkdebug(OpenContext& context) {
  const OptionReader& options = context.options();
  FaultRules rules;
  if (options.has("config")) {
    const std::string path = options.path("config");
    auto text = co_await read_text(context.home().engine, path);
    if (!text) co_return context.blame("config", std::move(text).error());
    Result<> added = add_fault_rules_of_file(rules, *text, path);
    if (!added) co_return std::unexpected(std::move(added).error());
  }
  CO_CHECK(add_fault_rules(rules, options));
  CO_TRY(Edge image, co_await context.attach("image", Role::filtered));
  CO_TRY(const WantedLimits wanted, read_wanted_limits(context, image.limits()));
  const Access rights{
      permissions_of(options.words("take-child-perms")),
      Permissions::all().without(permissions_of(options.words("unshare-child-perms")))};
  co_return std::make_unique<BlkDebug>(std::move(image), std::move(rules), wanted, rights);
}

}  // namespace

Breakpoints* breakpoints_of(Node& node) { return dynamic_cast<Breakpoints*>(&node); }

extern const Driver blkdebug_driver{"blkdebug", "makes requests fail, or stop, on purpose",
                                    blkdebug_options, open_blkdebug, true};

}  // namespace graph
