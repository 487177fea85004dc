#include "tests/support/graph_fixture.h"

#include <algorithm>
#include <array>

#include "formats/formats.h"
#include "graph/filter/filter.h"
#include "graph/protocol/protocol.h"
#include "src/toml.h"

namespace test {

using graph::CommonOptions;
using graph::Edge;
using graph::Node;
using graph::Permission;
using graph::RangePolicy;
using graph::Role;
using graph::ViewOptions;

namespace {

constexpr std::array drivers{
    &graph::memory_driver, &graph::null_co_driver,  &formats::qcow2_driver,
    &formats::raw_driver,  &graph::blkdebug_driver, &graph::blklogwrites_driver,
    &pass_driver};

}  // namespace

Bench::Bench(std::uint64_t seed) : world(seed), graph(world.home, drivers) {}

Bench::~Bench() {
  for (Disk* disk : disks_) disk->script.release();
  settle();
  for (auto& view : views) {
    if (view) (void)run(graph.detach(std::move(view)));
  }
  (void)run(graph.close());
  for (const Disk* disk : disks_) {
    EXPECT_THAT(disk->script.violations, testing::IsEmpty()) << disk->name();
  }
}

Disk& Bench::disk(std::string name, std::string content, CommonOptions common) {
  auto made = std::make_unique<Disk>(std::move(content));
  Disk& result = *made;
  EXPECT_OK(run(graph.insert(std::move(name), test_driver, common, std::move(made))));
  disks_.push_back(&result);
  kept_.push_back(shared(result));
  return result;
}

Pass& Bench::filter(std::string name, Node& child) {
  auto made = std::make_unique<Pass>(Edge("file", Role::filtered, shared(child)));
  Pass& result = *made;
  EXPECT_OK(run(graph.insert(std::move(name), test_driver, {}, std::move(made))));
  kept_.push_back(shared(result));
  return result;
}

Result<Table*> Bench::try_table(std::string name, Node& file, Role role, Node* other,
                                Role other_role, std::uint64_t size, CommonOptions common) {
  Edge first("file", role, shared(file));
  std::unique_ptr<Table> made;
  if (other == nullptr) {
    made = std::make_unique<Table>(std::move(first), size);
  } else {
    Edge second(other_role == Role::backing ? "backing" : "data-file", other_role, shared(*other));
    made = std::make_unique<Table>(std::move(first), std::move(second), size);
  }
  Table* result = made.get();
  auto placed = run(graph.insert(std::move(name), test_driver, common, std::move(made)));
  if (!placed) return std::unexpected(placed.error());
  kept_.push_back(shared(*result));
  return result;
}

Table& Bench::format(std::string name, Node& file, std::uint64_t size, CommonOptions common) {
  const auto made =
      try_table(std::move(name), file, Role::image, nullptr, Role::image, size, common);
  EXPECT_OK(made);
  return **made;
}

Table& Bench::overlay(std::string name, Node& file, Node& backing, std::uint64_t size,
                      CommonOptions common) {
  const auto made =
      try_table(std::move(name), file, Role::image, &backing, Role::backing, size, common);
  EXPECT_OK(made);
  return **made;
}

Node& Bench::add(std::string name,
                 std::initializer_list<std::pair<const char*, std::string>> options) {
  Options all;
  for (const auto& [key, value] : options) all.set(key, OptionValue{value, {}});
  const auto added = run(graph.add(std::move(name), all));
  EXPECT_OK(added);
  kept_.push_back(*added);
  return **added;
}

Result<Node*> Bench::try_add(std::string name, std::string_view toml) {
  TRY(const Options options, app::parse_toml(toml, "a.toml"));
  auto added = run(graph.add(std::move(name), options));
  if (!added) return std::unexpected(std::move(added).error());
  kept_.push_back(*added);
  return added->get();
}

Node& Bench::add(std::string name, std::string_view toml) {
  const auto added = try_add(std::move(name), toml);
  EXPECT_OK(added);
  return **added;
}

Result<View*> Bench::try_view(Node& node, ViewOptions options) {
  auto attached = run(graph.attach(shared(node), std::move(options)));
  if (!attached) return std::unexpected(attached.error());
  views.push_back(*std::move(attached));
  return views.back().get();
}

View& Bench::view(Node& node, ViewOptions options) {
  const auto attached = try_view(node, std::move(options));
  EXPECT_OK(attached);
  return **attached;
}

View& Bench::reader(Node& node, std::string user) {
  return view(node, ViewOptions(std::move(user)));
}

View& Bench::writer(Node& node, std::string user) {
  ViewOptions options(std::move(user));
  options.access.taken = Permission::consistent_read | Permission::write;
  return view(node, std::move(options));
}

View& Bench::grower(Node& node, std::string user) {
  ViewOptions options(std::move(user));
  options.policy = RangePolicy::growable;
  options.access.taken = Permission::consistent_read | Permission::write | Permission::resize;
  return view(node, std::move(options));
}

Result<> Bench::detach(View& view) {
  const auto found = std::ranges::find(views, &view, &std::unique_ptr<View>::get);
  std::unique_ptr<View> held = std::move(*found);
  views.erase(found);
  return run(graph.detach(std::move(held)));
}

Result<std::string> Bench::read(View& view, Range range) {
  std::string text(range.length, '?');
  const Buffers out(std::as_writable_bytes(std::span(text)));
  Result<> done = run(view.read(range.offset, out));
  if (!done) return std::unexpected(std::move(done).error());
  return text;
}

Result<> Bench::write(View& view, std::uint64_t offset, std::string data, graph::WriteFlags flags) {
  const ConstBuffers list(bytes_of(std::string_view(data)));
  return run(view.write(offset, list, flags));
}

Result<> Bench::zero(View& view, Range range, graph::ZeroFlags flags) {
  return run(view.write_zeroes(range, flags));
}

namespace {

Task<> read_alone(View& view, Range range) {
  std::string text(range.length, '?');
  const Buffers out(std::as_writable_bytes(std::span(text)));
  co_return co_await view.read(range.offset, out);
}

Task<> write_alone(View& view, std::uint64_t offset, std::string data, graph::WriteFlags flags) {
  const ConstBuffers list(bytes_of(std::string_view(data)));
  co_return co_await view.write(offset, list, flags);
}

}  // namespace

std::shared_ptr<Started<>> Bench::start_read(View& view, Range range) {
  return start(read_alone(view, range));
}

std::shared_ptr<Started<>> Bench::start_write(View& view, std::uint64_t offset, std::string data,
                                              graph::WriteFlags flags) {
  return start(write_alone(view, offset, std::move(data), flags));
}

std::string Bench::status(View& view, Range range, graph::MapDepth depth, std::size_t extents_max) {
  const auto list = run(view.block_status(range, depth, extents_max));
  if (!list) return list.error().message;
  std::string text;
  for (const graph::StatusExtent& extent : *list) {
    if (!text.empty()) text += "; ";
    text += std::string(extent.data ? "data " : "hole ") + (extent.zero ? "zero " : "") +
            std::to_string(extent.length) + " @" + std::to_string(extent.depth);
  }
  return text;
}

}  // namespace test
