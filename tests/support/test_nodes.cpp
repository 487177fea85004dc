#include "tests/support/test_nodes.h"

#include <algorithm>
#include <array>

#include "graph/base/clock.h"

namespace test {

using graph::Access;
using graph::Extent;
using graph::ExtentKind;
using graph::Permissions;

std::string text_of(Range range) {
  return std::to_string(range.offset) + "+" + std::to_string(range.length);
}

void Script::fail(std::string beginning, Errc code, unsigned nth) {
  faults_.push_back({std::move(beginning), code, nth});
}

void Script::release() {
  held_.clear();
  released_.notify_all();
}

std::size_t Script::count(std::string_view beginning) const {
  return static_cast<std::size_t>(std::ranges::count_if(
      calls, [&](const std::string& call) { return call.starts_with(beginning); }));
}

Task<> Script::call(const graph::Node& node, std::string text) {
  if (!text.starts_with("lose")) calls.push_back(text);  // it is among the rights
  std::optional<Errc> wrong;
  for (Fault& fault : faults_) {
    if (text.starts_with(fault.beginning) && fault.countdown > 0 && --fault.countdown == 0) {
      wrong = fault.code;
    }
  }
  for (const auto& [beginning, code] : broken_) {
    if (text.starts_with(beginning)) wrong = code;
  }
  if (dice_ != nullptr && steps_ > 0) {
    const std::uint64_t time = dice_->choose(steps_ + 1);
    if (time > 0) {
      const auto timer = node.home().clock.timer(Clock::Duration(static_cast<std::int64_t>(time)));
      (void)co_await timer->wait();
    }
  }
  const auto is_held = [&] {
    return std::ranges::any_of(held_, [&](const std::string& h) { return text.starts_with(h); });
  };
  ++waiting_;
  while (is_held()) co_await released_.wait();
  --waiting_;
  if (!wrong) co_return ok;
  const std::size_t digits = text.find_first_of("0123456789");
  const std::uint64_t at = digits == std::string::npos ? 0 : std::stoull(text.substr(digits));
  co_return std::unexpected(
      Error(*wrong, node.name(), at, node.name() + ": told to fail: " + text));
}

Result<> Rights::prepare(Access own) {
  log.push_back("prepare " + own.taken.text());
  if (refuses) return failure(*std::exchange(refuses, std::nullopt), "told to refuse");
  return ok;
}

void Disk::inspect(const std::string& call, Range range, std::uint64_t length_max,
                   Growing growing) {
  const graph::Limits& now = limits();
  const bool good_end = is_aligned(range.end(), now.request_alignment) || range.end() >= size();
  if (!is_aligned(range.offset, now.request_alignment) || !good_end) {
    script.violations.push_back("misaligned: " + call);
  }
  if (range.length > length_max) script.violations.push_back("too long: " + call);
  if (range.length == 0) script.violations.push_back("empty: " + call);
  if (growing == Growing::no && range.end() > size())
    script.violations.push_back("outside: " + call);
}

Task<> Disk::read(std::uint64_t offset, const Buffers& out) {
  const Range range{offset, out.size()};
  const std::string call = "read " + text_of(range);
  inspect(call, range, limits().max_transfer, Growing::no);
  if (!out.is_aligned_to(limits().memory_alignment) && range.end() != size()) {
    script.violations.push_back("memory: " + call);
  }
  CO_CHECK(co_await script.call(*this, call));
  fill_zero(out);
  if (offset >= content.size()) co_return ok;
  const std::string part = content.substr(offset, out.size());
  const ConstBuffers source(bytes_of(part));
  copy_bytes(out, source);
  co_return ok;
}

Task<> Disk::write(std::uint64_t offset, const ConstBuffers& data, graph::WriteFlags flags) {
  const Range range{offset, data.size()};
  const std::string call = "write " + text_of(range) + (flags.fua ? " fua" : "");
  inspect(call, range, limits().max_transfer, Growing::yes);
  if (!data.is_aligned_to(limits().memory_alignment) && range.end() < size()) {
    script.violations.push_back("memory: " + call);
  }
  if (flags.fua && !limits().native_fua) script.violations.push_back("fua: " + call);
  CO_CHECK(co_await script.call(*this, call));
  if (grows == graph::Growth::never && range.end() > size()) {
    co_return std::unexpected(fault(Errc::no_space, offset, "is full"));
  }
  content.resize(std::max<std::uint64_t>(content.size(), range.end()));
  refresh_size();
  for (const auto& span : data.spans()) {
    content.replace(offset, span.size(), reinterpret_cast<const char*>(span.data()), span.size());
    offset += span.size();
  }
  if (flags.fua) durable = content;
  co_return ok;
}

Task<> Disk::write_zeroes(Range range, graph::ZeroFlags flags) {
  const std::string call = "zeroes " + text_of(range) + (flags.fua ? " fua" : "") +
                           (flags.may_unmap ? " unmap" : "") + (flags.no_fallback ? " fast" : "");
  inspect(call, range, limits().max_zeroes, Growing::yes);
  const std::uint64_t unit = limits().zero_alignment;
  if (!is_aligned(range.offset, unit) || (!is_aligned(range.end(), unit) && range.end() < size())) {
    script.violations.push_back("zero alignment: " + call);
  }
  CO_CHECK(co_await script.call(*this, call));
  content.resize(std::max<std::uint64_t>(content.size(), range.end()));
  refresh_size();
  content.replace(range.offset, range.length, range.length, '\0');
  if (flags.fua) durable = content;
  co_return ok;
}

Task<> Disk::discard(Range range) {
  const std::string call = "discard " + text_of(range);
  inspect(call, range, limits().max_discard, Growing::no);
  CO_CHECK(co_await script.call(*this, call));
  content.replace(range.offset, range.length, range.length, '\0');
  co_return ok;
}

Task<> Disk::flush_to_children() { return script.call(*this, "drop caches"); }

Task<> Disk::flush_to_disk() {
  const std::string covered = content;  // F-1 promises no more than this
  CO_CHECK(co_await script.call(*this, "flush"));
  durable = covered;
  co_return ok;
}

Task<> Disk::resize(std::uint64_t size) {
  CO_CHECK(co_await script.call(*this, "resize " + std::to_string(size)));
  if (grows == graph::Growth::never && size > content.size()) {
    co_return std::unexpected(fault(Errc::not_supported, 0, "can't grow"));
  }
  content.resize(size);
  refresh_size();
  co_return ok;
}

Task<> Disk::prefetch(Range range) { return script.call(*this, "prefetch " + text_of(range)); }

Task<graph::Extents> Disk::map(Range range, graph::MapDepth depth) {
  const bool cheap = depth == graph::MapDepth::allocation;
  CO_CHECK(co_await script.call(*this, "map " + text_of(range) + (cheap ? " allocation" : "")));
  graph::Extents answer;
  if (!extents) {
    Extent all;
    all.length = range.length;
    all.kind = ExtentKind::data;
    all.allocated = all.settled = true;
    all.offset = range.offset;
    answer.list.push_back(all);
    co_return std::move(answer);
  }
  std::uint64_t at = 0;
  for (Extent extent : *extents) {
    const std::uint64_t start = std::max(at, range.offset);
    const std::uint64_t end = std::min(at + extent.length, range.end());
    at += extent.length;
    if (start >= end) continue;
    extent.length = end - start;
    extent.offset = start;
    extent.allocated = extent.settled = true;
    answer.list.push_back(extent);
  }
  co_return std::move(answer);
}

Task<> Disk::before_lose(Permissions lost) {
  rights.log.push_back("lose " + lost.text());
  return script.call(*this, "lose " + lost.text());
}

Task<> Disk::close() {
  CO_CHECK(co_await script.call(*this, "close"));
  if (close_error) co_return std::unexpected(fault(*close_error, 0, "told to fail at the end"));
  co_return ok;
}

Task<> Pass::read(std::uint64_t offset, const Buffers& out) {
  CO_CHECK(co_await script.call(*this, "read " + text_of({offset, out.size()})));
  co_return co_await Filter::read(offset, out);
}

Task<> Pass::write(std::uint64_t offset, const ConstBuffers& data, graph::WriteFlags flags) {
  const std::string text = text_of({offset, data.size()});
  CO_CHECK(co_await script.call(*this, "write " + text + (flags.fua ? " fua" : "")));
  co_return co_await Filter::write(offset, data, flags);
}

Task<> Pass::before_lose(Permissions lost) {
  rights.log.push_back("lose " + lost.text());
  return script.call(*this, "lose " + lost.text());
}

graph::Limits Pass::own_limits() const {
  graph::Limits merged = Filter::own_limits();
  if (alignment) merged.request_alignment = std::max(merged.request_alignment, *alignment);
  return merged;
}

void Table::put(Range range, ExtentKind kind, std::uint64_t at) {
  Extent extent;
  extent.length = range.length;
  extent.kind = kind;
  extent.allocated = kind != ExtentKind::below;
  extent.offset = at;
  if (kind == ExtentKind::data) extent.via = &file_;
  table_.emplace_back(range.offset, extent);
}

Task<> Table::write(std::uint64_t offset, const ConstBuffers& data, graph::WriteFlags flags) {
  const std::string text = text_of({offset, data.size()});
  CO_CHECK(co_await script.call(*this, "write " + text + (flags.fua ? " fua" : "")));
  CO_CHECK(co_await file_.write(data_start + offset, data, flags));
  put({offset, data.size()}, ExtentKind::data, data_start + offset);
  co_return ok;
}

Task<> Table::flush_to_children() { return script.call(*this, "drop caches"); }

Task<> Table::read_opaque(std::uint64_t offset, const Buffers& out) {
  CO_CHECK(co_await script.call(*this, "decode " + text_of({offset, out.size()})));
  for (const auto& span : out.spans()) std::ranges::fill(span, std::byte{'O'});
  co_return ok;
}

Task<graph::Extents> Table::map(Range range, graph::MapDepth depth) {
  const bool cheap = depth == graph::MapDepth::allocation;
  CO_CHECK(co_await script.call(*this, "map " + text_of(range) + (cheap ? " allocation" : "")));
  graph::Extents answer;
  for (std::uint64_t at = range.offset; at < range.end();) {
    Extent found;
    found.length = range.end() - at;
    found.kind = ExtentKind::below;
    found.offset = at;
    if (other_ && other_.role() == graph::Role::backing) found.via = &other_;
    for (const auto& [start, extent] : table_) {
      if (start <= at && at < start + extent.length) {
        found = extent;
        found.length = std::min(start + extent.length, range.end()) - at;
        found.offset = extent.offset + (at - start);
      } else if (start > at) {
        found.length = std::min(found.length, start - at);
      }
    }
    if (map_max) found.length = std::min(found.length, *map_max);
    answer.list.push_back(found);
    at += found.length;
    if (map_max) break;
  }
  co_return std::move(answer);
}

Task<> Table::close() { return script.call(*this, "close"); }

extern const graph::Driver test_driver{"test", "built by a test", {}, nullptr};

namespace {

constexpr std::array pass_options{
    OptionSpec{"file", Kind::node, "", "what it shows"},
    OptionSpec{"fails", Kind::boolean, "false", "fails once its child is open"},
};

Task<std::unique_ptr<graph::Node>> open_pass(graph::OpenContext& context) {
  CO_TRY(graph::Edge file, co_await context.attach("file", graph::Role::filtered));
  if (context.options().boolean("fails")) co_return failure(Errc::io_error, "told to fail");
  co_return std::make_unique<Pass>(std::move(file));
}

}  // namespace

extern const graph::Driver pass_driver{"pass", "shows its child", pass_options, open_pass};

}  // namespace test
