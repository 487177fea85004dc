#include "graph/base/engine.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <list>
#include <string>
#include <vector>

#include "tests/support/real_world.h"

namespace {

class AnEngine : public testing::TestWithParam<EngineKind> {
 protected:
  void SetUp() override {
    if (!world.missing().empty()) GTEST_SKIP() << world.missing();
  }
  Engine& engine() { return world.home.engine; }
  // Opens and keeps it in `file`.
  Task<> open(const std::string& name, OpenFlags flags) {
    auto opened = co_await engine().open(folder.path(name), flags);
    if (!opened) co_return std::unexpected(error_from_errno(opened.error().number, name));
    file = *std::move(opened);
    co_return ok;
  }
  void make(const std::string& name, const std::string& content) {
    std::ofstream(folder.path(name), std::ios::binary) << content;
  }

  test::TempDir folder;
  test::RealWorld world{GetParam()};
  std::unique_ptr<EngineFile> file;
};

INSTANTIATE_TEST_SUITE_P(Engines, AnEngine, test::each_engine, test::engine_of_case);

constexpr OpenFlags writing{FileAccess::read_write, Caching::buffered, Creation::never};
constexpr OpenFlags making{FileAccess::read_write, Caching::buffered, Creation::exclusive};

Task<> write_and_read(EngineFile& file) {
  Buffer first(5000);
  Buffer second(3000);
  std::ranges::fill(first.bytes(), std::byte{1});
  std::ranges::fill(second.bytes(), std::byte{2});
  ConstBuffers data(first.bytes());
  data.add(second.bytes());
  const auto put = co_await file.write(100, data, Durability::synced);
  EXPECT_EQ(put.value_or(0), 8000U);
  EXPECT_TRUE(co_await file.sync());

  Buffer back(8200);
  const Buffers out(back.bytes());
  const auto got = co_await file.read(0, out);
  EXPECT_EQ(got.value_or(0), 8100U);
  EXPECT_EQ(back.bytes()[99], std::byte{0});
  EXPECT_EQ(back.bytes()[100], std::byte{1});
  EXPECT_EQ(back.bytes()[5100], std::byte{2});
  const auto end = co_await file.read(8100, out);
  EXPECT_EQ(end.value_or(1), 0U);
  const auto status = co_await file.status();
  EXPECT_EQ(status ? status->size : 0, 8100U);
  EXPECT_TRUE(status && status->kind == FileKind::regular);
  co_return ok;
}

TEST_P(AnEngine, WritesReadsAndTellsTheSize) {
  ASSERT_TRUE(world.run(open("a", making)));
  EXPECT_TRUE(world.run(write_and_read(*file)));
}

Task<> fail_in_every_way(Engine& engine, std::string folder) {
  const auto missing = co_await engine.open(folder + "/missing", writing);
  EXPECT_EQ(missing ? 0 : missing.error().number, ENOENT);
  const auto made = co_await engine.open(folder + "/a", making);
  EXPECT_TRUE(made);
  const auto again = co_await engine.open(folder + "/a", making);
  EXPECT_EQ(again ? 0 : again.error().number, EEXIST);
  EXPECT_TRUE(co_await engine.remove(folder + "/a"));
  const auto gone = co_await engine.remove(folder + "/a");
  EXPECT_EQ(gone ? 0 : gone.error().number, ENOENT);
  const auto nothing = co_await (*made)->seek(Seek::data, 0);
  EXPECT_EQ(nothing ? 0 : nothing.error().number, ENXIO);
  co_return ok;
}

TEST_P(AnEngine, SaysWhatTheKernelSaid) {
  EXPECT_TRUE(world.run(fail_in_every_way(engine(), folder.path(""))));
}

// More at once than the ring has entries, each started before the first has ended.
Task<> read_one(EngineFile& file, std::uint64_t number, unsigned& wrong) {
  Buffer memory(512);
  const Buffers out(memory.bytes());
  const auto got = co_await file.read(number * 512, out);
  const auto expected = static_cast<std::byte>(number % 251);
  if (got.value_or(0) != 512 || memory.bytes()[7] != expected) ++wrong;
  co_return ok;
}

TEST_P(AnEngine, TakesMoreAtOnceThanItsRingOrItsThreadsHold) {
  constexpr std::uint64_t count = 2000;
  std::string content;
  for (std::uint64_t i = 0; i < count; ++i) content += std::string(512, static_cast<char>(i % 251));
  make("a", content);
  ASSERT_TRUE(world.run(open("a", OpenFlags{})));
  unsigned wrong = 0;
  Gate gate;

  for (std::uint64_t i = 0; i < count; ++i) {
    spawn(world.context.get_executor(), gate.enter_anyway(),
          [](EngineFile& from, std::uint64_t number, unsigned& bad) -> asio::awaitable<void> {
            (void)co_await read_one(from, number, bad);
          }(*file, i, wrong));
  }
  world.context.restart();
  world.context.run();

  EXPECT_EQ(gate.inside(), 0U);
  EXPECT_EQ(wrong, 0U);
}

Task<> punch(EngineFile& file) {
  EXPECT_TRUE(co_await file.truncate(1 * MiB));
  const Range middle{256 * KiB, 64 * KiB};
  EXPECT_TRUE(co_await file.fallocate(FallocateMode::allocate, middle));
  const auto status = co_await file.status();
  EXPECT_GE(status ? status->allocated : 0, 64 * KiB);
  EXPECT_TRUE(co_await file.fallocate(FallocateMode::punch_hole, middle));
  const auto after = co_await file.status();
  EXPECT_EQ(after ? after->allocated : 1, 0U);
  EXPECT_EQ(after ? after->size : 1, 1 * MiB);
  EXPECT_TRUE(co_await file.will_need({0, 1 * MiB}));
  co_return ok;
}

TEST_P(AnEngine, AllocatesAndPunches) {
  ASSERT_TRUE(world.run(open("a", making)));
  EXPECT_TRUE(world.run(punch(*file)));
}

TEST_P(AnEngine, ReadsNowWhatIsCached) {
  make("a", std::string(10'000, 'a'));
  ASSERT_TRUE(world.run(open("a", OpenFlags{})));
  Buffer memory(10'000);
  const Buffers out(memory.bytes());

  const auto got = file->read_now(0, out);

  EXPECT_EQ(got.value_or(0), 10'000U);
  EXPECT_EQ(memory.bytes()[9'999], std::byte{'a'});
}

TEST_P(AnEngine, WritesNowIntoTheCache) {
  ASSERT_TRUE(world.run(open("a", making)));
  const std::string data = "abc";
  const ConstBuffers list(bytes_of(data));

  EXPECT_EQ(file->write_now(5, list).value_or(0), 3U);

  EXPECT_EQ(std::filesystem::file_size(folder.path("a")), 8U);
}

Task<> reopen(EngineFile& file) {
  const std::string data = "abc";
  const ConstBuffers list(bytes_of(data));
  const auto before = co_await file.write(0, list, Durability::cached);
  EXPECT_EQ(before ? 0 : before.error().number, EBADF);
  EXPECT_TRUE(co_await file.prepare_reopen(FileAccess::read_write));
  file.abort_reopen();
  const auto aborted = co_await file.write(0, list, Durability::cached);
  EXPECT_EQ(aborted ? 0 : aborted.error().number, EBADF);
  EXPECT_TRUE(co_await file.prepare_reopen(FileAccess::read_write));
  file.commit_reopen();
  const auto after = co_await file.write(0, list, Durability::cached);
  EXPECT_EQ(after.value_or(0), 3U);
  co_return ok;
}

TEST_P(AnEngine, OpensTheSameFileAgainThoughItsNameIsGone) {
  make("a", "xyz");
  ASSERT_TRUE(world.run(open("a", OpenFlags{})));
  std::filesystem::rename(folder.path("a"), folder.path("b"));

  EXPECT_TRUE(world.run(reopen(*file)));

  std::ifstream moved(folder.path("b"));
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(moved), {}), "abc");
}

TEST_P(AnEngine, LetsTheEventLoopEndWhenNothingIsInFlight) {
  make("a", "xyz");
  ASSERT_TRUE(world.run(open("a", OpenFlags{})));
  world.context.restart();

  EXPECT_EQ(world.context.run(), 0U);
}

}  // namespace
