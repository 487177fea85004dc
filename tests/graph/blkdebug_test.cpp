// blkdebug: faults on purpose, anywhere in a graph; and what the request path does when they
// strike.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "graph/filter/breakpoints.h"
#include "graph/filter/filter.h"
#include "graph/protocol/protocol.h"
#include "src/toml.h"
#include "tests/support/graph_fixture.h"

namespace {

using graph::Breakpoints;
using graph::DebugEvent;
using graph::Permission;
using test::code_of;
using test::message_of;
using testing::ElementsAre;

class BlkDebug : public test::GraphTest {
 protected:
  graph::Node& faulty(const std::string& keys, const std::string& image = "disk",
                      const std::string& name = "faulty") {
    return add(name, "driver = 'blkdebug'\nimage = '" + image + "'\n" + keys);
  }
  graph::Node& raw_over(const std::string& file, const std::string& name = "raw") {
    return add(name, "driver = 'raw'\nfile = '" + file + "'\n");
  }
  // The line that a configuration of blkdebug is refused with.
  std::string complaint(const std::string& keys) {
    const auto made = try_add("bad", "driver = 'blkdebug'\nimage = 'disk'\n" + keys);
    EXPECT_FALSE(made) << keys;
    return message_of(made);
  }
};

TEST_F(BlkDebug, WithoutRulesPassesEverythingOnAsItIs) {
  test::Disk& disk = this->disk("disk", 4096);
  disk.wants.native_zeroes = true;
  refresh();
  test::View& view = grower(faulty(""));

  EXPECT_OK(write(view, 0, "x"));
  EXPECT_OK(read(view, {0, 1}));
  EXPECT_OK(zero(view, {5, 7}));
  EXPECT_OK(discard(view, {20, 2}));
  EXPECT_OK(run(view.resize(5000)));
  EXPECT_OK(run(view.prefetch({0, 1})));
  EXPECT_EQ(status(view, {0, 5000}), "data 5000 @1");
  EXPECT_OK(flush(view));

  EXPECT_THAT(disk.script.calls,
              ElementsAre("write 0+1", "read 0+1", "zeroes 5+7", "discard 20+2", "resize 5000",
                          "prefetch 0+1", "map 0+5000", "drop caches", "flush"));
  EXPECT_EQ(view.node().growth(), graph::Growth::as_child);
}

TEST_F(BlkDebug, FailsWhatARuleNamesWithTheErrorThatItSays) {
  test::Disk& disk = this->disk("disk", 4096);
  test::View& view =
      writer(faulty("inject-error = [{ event = 'none', iotype = 'write', errno = 28 }]"));

  EXPECT_OK(read(view, {0, 512}));
  const auto failed = write(view, 512, "x");

  EXPECT_EQ(code_of(failed), Errc::no_space);
  EXPECT_EQ(message_of(failed), "faulty: blkdebug: injected: No space left on device");
  EXPECT_EQ(failed.error().offset, 512U);
  EXPECT_EQ(failed.error().node, "faulty");
  EXPECT_EQ(disk.script.count("write"), 0U);
}

TEST_F(BlkDebug, TellsKindsOfRequestsApart) {
  test::Disk& disk = this->disk("disk", 4096);
  disk.wants.native_zeroes = true;
  refresh();
  for (const std::string type :
       {"read", "write", "write-zeroes", "discard", "flush", "block-status"}) {
    graph::Node& made =
        faulty("inject-error = [{ event = 'none', iotype = '" + type + "' }]", "disk", "f-" + type);
    test::View& view = writer(made);

    EXPECT_EQ(!read(view, {0, 1}), type == "read");
    EXPECT_EQ(!write(view, 0, "x"), type == "write");
    EXPECT_EQ(!zero(view, {0, 1}), type == "write-zeroes");
    EXPECT_EQ(!discard(view, {0, 1}), type == "discard");
    EXPECT_EQ(!flush(view), type == "flush");
    EXPECT_EQ(status(view, {0, 1}) != "data 1 @1", type == "block-status") << type;
  }
}

TEST_F(BlkDebug, AtOnceMeansBeforeAnythingElseRuns) {
  disk("disk", 512);
  test::View& later = reader(faulty("inject-error = [{ event = 'none' }]", "disk", "later"));
  test::View& at_once =
      reader(faulty("inject-error = [{ event = 'none', immediately = true }]", "disk", "at-once"));
  world.scheduler.set_inline_starts(true);
  const auto steps_of = [&](test::View& view) {
    const std::uint64_t before = world.scheduler.steps();
    EXPECT_FALSE(read(view, {0, 1}));
    return world.scheduler.steps() - before;
  };

  std::uint64_t least_later = steps_of(later);
  std::uint64_t least_at_once = steps_of(at_once);
  for (int i = 0; i < 20; ++i) {  // whether a root starts inline is drawn by lot
    least_later = std::min(least_later, steps_of(later));
    least_at_once = std::min(least_at_once, steps_of(at_once));
  }
  EXPECT_LT(least_at_once, least_later);
}

TEST_F(BlkDebug, AboveItRawSaysWhenItReadsAndWrites) {
  disk("disk", 4096);
  faulty(
      "inject-error = [{ event = 'read_aio', once = true },\n"
      "  { event = 'write_aio', state = 2, errno = 28 }]\n"
      "set-state = [{ event = 'write_aio', state = 1, new_state = 2 }]");
  test::View& view = writer(raw_over("faulty"));

  EXPECT_EQ(code_of(read(view, {0, 1})), Errc::io_error);
  EXPECT_OK(read(view, {0, 1}));
  EXPECT_OK(write(view, 0, "x"));
  EXPECT_EQ(code_of(write(view, 0, "x")), Errc::no_space);
}

TEST_F(BlkDebug, AFormatSaysToItsFileFromWhereItReads) {
  disk("disk", 4096);
  graph::Node& made = faulty(
      "inject-error = [{ event = 'read_aio', iotype = 'read', once = true }]\n"
      "set-state = [{ event = 'read_backing_aio', new_state = 2 }]");
  test::Disk& base = disk("base", 1024);
  test::Table& top = overlay("top", made, base, 1024);
  top.put({0, 512}, graph::ExtentKind::data);
  test::View& view = reader(top);
  Breakpoints& points = *graph::breakpoints_of(made);
  points.suspend_at(DebugEvent::read_backing_aio, "A");

  EXPECT_EQ(code_of(read(view, {0, 512})), Errc::io_error);
  const auto reading = start_read(view, {512, 512});
  settle();
  EXPECT_TRUE(points.is_suspended("A"));
  EXPECT_EQ(base.script.count("read"), 0U);
  EXPECT_OK(points.resume("A"));
  settle();

  EXPECT_TRUE(reading->succeeded());
}

TEST_F(BlkDebug, BelowAWindowErrorsComeAtTheRightByte) {
  disk("disk", 4096);
  faulty("inject-error = [{ event = 'read_aio', sector = 3 }]");
  test::View& view =
      reader(add("raw", "driver = 'raw'\nfile = 'faulty'\noffset = 1024\nsize = 2048\n"));

  EXPECT_OK(read(view, {0, 512}));
  const auto failed = read(view, {512, 512});

  EXPECT_EQ(code_of(failed), Errc::io_error);
  EXPECT_EQ(failed.error().offset, 512U);
}

TEST_F(BlkDebug, HearsOfItsParentsThroughFilters) {
  test::Disk& disk = this->disk("disk", 4096);
  graph::Node& faulty = this->faulty("inject-error = [{ event = 'read_aio', once = true }]");
  test::View& view = reader(raw_over("faulty"));
  test::Pass& between = filter("between", faulty);

  EXPECT_OK(run(graph.insert_filter(shared(between), shared(faulty))));

  EXPECT_EQ(code_of(read(view, {0, 1})), Errc::io_error);
  EXPECT_OK(read(view, {0, 1}));
  EXPECT_EQ(disk.script.count("read"), 1U);
}

TEST_F(BlkDebug, HearsOfFlushesOfTheNodeAboveIt) {
  test::Disk& disk = this->disk("disk", 4096);
  faulty("inject-error = [{ event = 'flush_to_disk', iotype = 'flush' }]");
  test::View& view = writer(raw_over("faulty"));
  EXPECT_OK(write(view, 0, "x"));

  EXPECT_EQ(code_of(flush(view)), Errc::io_error);

  EXPECT_EQ(disk.script.count("flush"), 0U);
}

TEST_F(BlkDebug, StandsInARow) {
  disk("disk", 4096);
  faulty("inject-error = [{ event = 'pwritev', sector = 1 }]", "disk", "low");
  faulty("inject-error = [{ event = 'pwritev', sector = 2, errno = 28 }]", "low", "high");
  test::View& view = writer(raw_over("high"));

  EXPECT_OK(write(view, 0, "x"));
  EXPECT_EQ(code_of(write(view, 512, "x")), Errc::io_error);
  EXPECT_EQ(code_of(write(view, 1024, "x")), Errc::no_space);
}

TEST_F(BlkDebug, IsPutUnderLiveUsersAndTakenAway) {
  test::Disk& disk = this->disk("disk", 4096);
  raw_over("disk");
  test::View& view = writer(*graph.find("raw"));
  graph::Node& faulty = this->faulty("inject-error = [{ event = 'write_aio' }]\nalign = 1024");

  EXPECT_OK(run(graph.insert_filter(shared(faulty), shared(disk))));
  EXPECT_EQ(view.alignment(), 1024U);
  EXPECT_EQ(code_of(write(view, 0, "x")), Errc::io_error);
  EXPECT_OK(run(graph.bypass_filter(shared(faulty))));

  EXPECT_EQ(view.alignment(), 1U);
  EXPECT_OK(write(view, 0, "x"));
}

TEST_F(BlkDebug, A2_PadsToItsAlignment) {
  test::Disk& disk = this->disk("disk", 16384);
  test::View& view = writer(faulty("align = 4096"));

  EXPECT_OK(write(view, 512, "x"));
  EXPECT_OK(read(view, {4095, 2}));

  EXPECT_THAT(disk.script.calls, ElementsAre("read 0+4096", "write 0+4096", "read 0+8192"));
}

TEST_F(BlkDebug, A3_AFailedReadOfPaddingFailsTheWriteAndItsNeighboursStay) {
  for (const std::string edge : {"head", "tail"}) {
    test::Disk& disk = this->disk("disk-" + edge, std::string(16384, 'a'));
    test::View& view = writer(faulty("align = 4096\ninject-error = [{ event = 'pwritev_rmw_" +
                                         edge + "', iotype = 'read', once = true }]",
                                     disk.name(), "f-" + edge));
    const std::uint64_t offset = edge == "head" ? 4096 + 512 : 4096;

    const auto failed = write(view, offset, std::string(1024, 'b'));

    EXPECT_EQ(code_of(failed), Errc::io_error) << edge;
    EXPECT_EQ(failed.error().offset, offset) << edge;
    EXPECT_EQ(disk.content, std::string(16384, 'a')) << edge;
    EXPECT_EQ(disk.script.count("write"), 0U) << edge;
    EXPECT_OK(write(view, offset, std::string(1024, 'b')));
    EXPECT_EQ(disk.content.substr(offset - 1, 1026), "a" + std::string(1024, 'b') + "a") << edge;
  }
}

TEST_F(BlkDebug, A4_LimitsSplitRequests) {
  test::Disk& disk = this->disk("disk", 65536);
  disk.wants.native_zeroes = true;
  refresh();
  test::View& view =
      writer(faulty("align = 512\nmax-transfer = 1024\nopt-write-zero = 2048\n"
                    "max-write-zero = 4096\nopt-discard = 1024\nmax-discard = 3072"));

  EXPECT_OK(write(view, 0, std::string(2048, 'x')));
  EXPECT_OK(read(view, {0, 1536}));
  EXPECT_THAT(disk.script.take(),
              ElementsAre("write 0+1024", "write 1024+1024", "read 0+1024", "read 1024+512"));

  EXPECT_OK(zero(view, {1536, 7168}));  // 512 written, 6144 zeroed, 512 written
  EXPECT_THAT(disk.script.take(), ElementsAre("write 1536+512", "zeroes 2048+4096",
                                              "zeroes 6144+2048", "write 8192+512"));

  EXPECT_OK(discard(view, {512, 6144}));
  EXPECT_THAT(disk.script.take(), ElementsAre("discard 1024+3072", "discard 4096+2048"));
}

TEST_F(BlkDebug, TakesAndWithholdsRights) {
  test::Disk& disk = this->disk("disk", 4096);
  graph::Node& made =
      faulty("take-child-perms = ['write', 'write-unchanged']\nunshare-child-perms = ['resize']");

  EXPECT_EQ(made.child("image")->access().taken, Permission::write | Permission::write_unchanged);
  EXPECT_EQ(made.child("image")->access().shared,
            graph::Permissions::all().without(Permission::resize));
  graph::ViewOptions growing("job 'g'");
  growing.access.taken = Permission::resize;
  EXPECT_EQ(code_of(try_view(disk, std::move(growing))), Errc::busy);
}

TEST_F(BlkDebug, RefusesValuesThatCantBe) {
  disk("disk", 4096);
  EXPECT_EQ(complaint("align = 1000"), "a.toml:3:1: bad: 'align': 1000 is no power of two");
  EXPECT_EQ(complaint("align = '4G'"),
            "a.toml:3:1: bad: 'align': 4294967296 is more than 2147483647");
  EXPECT_EQ(complaint("align = 512\nmax-transfer = 1000"),
            "a.toml:4:1: bad: 'max-transfer': 1000 is no multiple of 512");
  EXPECT_EQ(complaint("align = 512\nopt-write-zero = 256"),
            "a.toml:4:1: bad: 'opt-write-zero': 256 is no multiple of 512");
  EXPECT_EQ(complaint("opt-write-zero = 4096\nmax-write-zero = 2048"),
            "a.toml:4:1: bad: 'max-write-zero': 2048 is no multiple of 4096");
  EXPECT_EQ(complaint("opt-discard = 3000"),
            "a.toml:3:1: bad: 'opt-discard': 3000 is no power of two");
  EXPECT_EQ(complaint("opt-discard = 4096\nmax-discard = 2048"),
            "a.toml:4:1: bad: 'max-discard': 2048 is no multiple of 4096");
  EXPECT_EQ(complaint("take-child-perms = ['write', 'graph-mod']"),
            "a.toml:3:30: 'take-child-perms': 'graph-mod' is none of consistent-read, write, "
            "write-unchanged, resize");
  EXPECT_EQ(complaint("take-child-perms = 'write'"),
            "a.toml:3:1: 'take-child-perms': expected a list of strings, not a string");
  EXPECT_EQ(graph.find("bad"), nullptr);
}

TEST_F(BlkDebug, RefusesRulesThatCantBe) {
  disk("disk", 4096);
  EXPECT_EQ(complaint("inject-error = { event = 'pwritev' }"),
            "a.toml:3:1: 'inject-error': expected a list of tables, not a table");
  EXPECT_EQ(complaint("inject-error = ['pwritev']"),
            "a.toml:3:17: 'inject-error': expected a list of tables, and this is a string");
  EXPECT_EQ(complaint("inject-error = [{ evnt = 'pwritev' }]"),
            "a.toml:3:19: unknown key 'evnt', did you mean 'event'?");
  EXPECT_EQ(complaint("[[inject-error]]\nevent = 'pwritev'\niotype = 'reed'\n"),
            "a.toml:5:1: 'iotype': 'reed' is none of read, write, write-zeroes, discard, flush, "
            "block-status");
  EXPECT_EQ(complaint("inject-error = [{ event = 'l2_lod' }]"),
            "a.toml:3:19: 'event': there is no event 'l2_lod', did you mean 'l2_load'?");
  EXPECT_EQ(complaint("inject-error = [{ event = \"a\\nb\" }]"),
            "a.toml:3:19: 'event': there is no event 'a\\x0ab'");
  EXPECT_EQ(complaint("[[set-state]]\nevent = 'pwritev'\n"),
            "a.toml:3:1: the key 'new_state' is missing");
}

TEST(BlkDebugConfig, IsAFileOfRulesReadThroughTheEngine) {
  sim::Disk host(1);
  sim::World world(1, host);
  const std::string rules = "[inject-error]\nevent = \"none\"\nerrno = \"28\"\niotype = \"read\"\n";
  const auto bytes = bytes_of(std::string_view(rules));
  host.make("conf/rules.cfg", std::vector<std::byte>(bytes.begin(), bytes.end()));
  host.make("conf/bad.cfg", std::vector<std::byte>(5, std::byte{'x'}));
  constexpr std::array drivers{&graph::memory_driver, &graph::blkdebug_driver};
  graph::Graph graph(world.home, drivers);
  const auto add = [&](const std::string& config) {
    const auto options = app::parse_toml(
        "driver = 'blkdebug'\nimage = { driver = 'memory' }\n"
        "config = '" +
            config + "'\n",
        "conf/a.toml");
    return world.run(graph.add("faulty", *options));
  };

  EXPECT_EQ(message_of(add("none.cfg")),
            "conf/a.toml:3:1: conf/none.cfg: No such file or directory");
  EXPECT_EQ(message_of(add("bad.cfg")), "conf/bad.cfg:1:1: a key before the first group");
  auto added = add("rules.cfg");
  ASSERT_OK(added);
  auto view = world.run(graph.attach(*added, graph::ViewOptions("export 'e'")));
  ASSERT_OK(view);
  std::byte byte{};
  const Buffers out(std::span(&byte, 1));
  EXPECT_EQ(code_of(world.run((*view)->read(0, out))), Errc::no_space);

  EXPECT_OK(world.run(graph.detach(*std::move(view))));
  added = std::unexpected(Error(Errc::canceled, ""));
  EXPECT_OK(world.run(graph.close()));
}

}  // namespace
