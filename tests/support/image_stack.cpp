#include "tests/support/image_stack.h"

#include <gtest/gtest.h>

#include <array>

#include "formats/formats.h"
#include "graph/protocol/protocol.h"

namespace test {
namespace {

using graph::Permission;
using graph::Permissions;

constexpr std::array<const graph::Driver*, 2> drivers{&graph::file_driver, &formats::raw_driver};

OptionValue text(std::string value) { return OptionValue{std::move(value), {}}; }

graph::ViewOptions options(const std::string& name, Permissions taken) {
  graph::ViewOptions made(name);
  made.access.taken = taken;
  return made;
}

constexpr Permissions reads = Permission::consistent_read;
constexpr Permissions writes = Permission::consistent_read | Permission::write;

}  // namespace

ImageStack::ImageStack(sim::World& world, Cached cached)
    : world_(world), graph_(world.home, drivers) {
  const Result<> built = world_.run(build(cached));
  EXPECT_TRUE(built) << built.error().message;
}

ImageStack::~ImageStack() { (void)world_.run(end()); }

Task<> ImageStack::build(Cached cached) {
  Options file;
  file.set("driver", text("file"));
  file.set("filename", text("disk"));
  if (cached == Cached::no) {
    auto cache = std::make_shared<Options>();
    cache->set("direct", OptionValue{true, {}});
    file.set("cache", OptionValue{cache, {}});
  }
  CO_CHECK(co_await graph_.add("file", file));
  Options whole;
  whole.set("driver", text("raw"));
  whole.set("file", text("file"));
  CO_CHECK(co_await graph_.add("whole", whole));
  constexpr std::uint64_t part_start = 1000;
  Options part;
  part.set("driver", text("raw"));
  part.set("file", text("file"));
  part.set("offset", text(std::to_string(part_start)));
  part.set("size", text("32K"));
  CO_CHECK(co_await graph_.add("part", part));

  graph::ViewOptions growing = options("growing", writes | Permission::resize);
  growing.policy = graph::RangePolicy::growable;
  CO_CHECK(co_await show("growing", "file", 0, growing));
  CO_CHECK(co_await show("fixed", "whole", 0, options("fixed", writes)));
  graph::ViewOptions window = options("window", writes);
  window.window = Range{777, 20'001};
  CO_CHECK(co_await show("window", "whole", 777, window));
  CO_CHECK(co_await show("part", "part", part_start, options("part", writes)));
  graph::ViewOptions through = options("write-through", writes);
  through.write_through = true;
  CO_CHECK(co_await show("write-through", "file", 0, through));
  CO_CHECK(co_await show("read-only", "file", 0, options("read-only", reads)));
  graph::ViewOptions peep = options("read-only window", reads);
  peep.window = Range{513, 9'999};
  CO_CHECK(co_await show("read-only window", "part", part_start + 513, peep));
  co_return ok;
}

Task<> ImageStack::show(std::string name, const std::string& node, std::uint64_t start,
                        graph::ViewOptions wanted) {
  ShownView shown;
  shown.name = std::move(name);
  shown.start = start;
  shown.writes = wanted.access.taken.has(Permission::write);
  shown.grows = wanted.policy == graph::RangePolicy::growable;
  CO_TRY(shown.view, co_await graph_.attach(graph_.find(node), std::move(wanted)));
  views.push_back(std::move(shown));
  co_return ok;
}

Task<> ImageStack::end() {
  for (ShownView& shown : views) (void)co_await graph_.detach(std::move(shown.view));
  views.clear();
  co_return co_await graph_.close();
}

}  // namespace test
