#include "tests/support/qcow2_stack.h"

#include <array>

#include "formats/formats.h"
#include "graph/protocol/protocol.h"
#include "graph/snapshot_change.h"

namespace test {
namespace {

constexpr std::array<const graph::Driver*, 3> drivers{&graph::file_driver, &formats::qcow2_driver,
                                                      &formats::raw_driver};

}  // namespace

OptionValue option_text(std::string text) {
  OptionValue value;
  value.data = std::move(text);
  return value;
}

OptionValue option_flag(bool flag) {
  OptionValue value;
  value.data = flag;
  return value;
}

Qcow2Stack::Qcow2Stack(sim::World& world, const std::string& path, Mode mode, Caching caching,
                       Keys keys)
    : world_(world),
      graph_(world.home, drivers),
      opened_(world.run(build(path, mode, caching, keys))) {}

Task<> Qcow2Stack::build(const std::string& path, Mode mode, Caching caching, const Keys& keys) {
  auto file = std::make_shared<Options>();
  file->set("driver", option_text("file"));
  file->set("filename", option_text(path));
  if (caching == Caching::direct) {
    auto cache = std::make_shared<Options>();
    cache->set("direct", option_flag(true));
    OptionValue value;
    value.data = std::move(cache);
    file->set("cache", std::move(value));
  }
  Options disk;
  disk.set("driver", option_text("qcow2"));
  OptionValue below;
  below.data = std::move(file);
  disk.set("file", std::move(below));
  if (mode == Mode::read_only) disk.set("read-only", option_flag(true));
  for (const auto& [key, value] : keys) disk.set(key, value);
  CO_CHECK(co_await graph_.add("disk", disk));
  co_return co_await show(mode);
}

Task<> Qcow2Stack::show(Mode mode) {
  std::shared_ptr<graph::Node> node = graph_.find("disk");
  graph::ViewOptions options("export 'disk'");
  if (mode == Mode::writable) {
    options.access.taken = options.access.taken | graph::Permission::write;
  }
  CO_TRY(view_, co_await graph_.attach(node, std::move(options)));
  co_return ok;
}

Task<> Qcow2Stack::apply_detached(std::string snapshot) {
  CO_CHECK(co_await graph_.detach(std::move(view_)));
  CO_CHECK(co_await graph::apply_snapshot(*graph_.find("disk"), std::move(snapshot)));
  co_return co_await show(Mode::writable);
}

// Through a view that may, as a command does.
Task<> Qcow2Stack::resize_detached(std::uint64_t size) {
  CO_CHECK(co_await graph_.detach(std::move(view_)));
  graph::ViewOptions options("command 'resize'");
  options.policy = graph::RangePolicy::growable;
  options.access.taken =
      graph::Permission::consistent_read | graph::Permission::write | graph::Permission::resize;
  std::shared_ptr<graph::Node> node = graph_.find("disk");
  CO_TRY(auto owner, co_await graph_.attach(std::move(node), std::move(options)));
  Result<> resized = co_await owner->resize(size);
  CO_CHECK(co_await graph_.detach(std::move(owner)));
  CO_CHECK(co_await show(Mode::writable));
  co_return resized;
}

Result<> Qcow2Stack::resize(std::uint64_t size) { return world_.run(resize_detached(size)); }

Result<> Qcow2Stack::apply(const std::string& snapshot) {
  return world_.run(apply_detached(snapshot));
}

Task<> Qcow2Stack::end() {
  Result<> first = ok;
  if (view_) first = co_await graph_.detach(std::move(view_));
  Result<> closed = co_await graph_.close();
  co_return first ? closed : first;
}

Result<> Qcow2Stack::close() { return world_.run(end()); }

Qcow2Stack::~Qcow2Stack() { (void)world_.run(end()); }

Result<std::string> Qcow2Stack::read(Range range) {
  std::string out(range.length, '?');
  const Buffers list(std::as_writable_bytes(std::span(out)));
  Result<> done = world_.run(view_->read(range.offset, list));
  if (!done) return std::unexpected(std::move(done).error());
  return out;
}

Result<> Qcow2Stack::write(std::uint64_t offset, std::string_view data, graph::WriteFlags flags) {
  const ConstBuffers list(bytes_of(data));
  return world_.run(view_->write(offset, list, flags));
}

Result<> Qcow2Stack::zero(Range range, graph::ZeroFlags flags) {
  return world_.run(view_->write_zeroes(range, flags));
}

}  // namespace test
