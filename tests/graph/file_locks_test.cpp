#include "graph/protocol/file_locks.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>

#include "tests/support/real_world.h"
#include "tests/support/world.h"

namespace {

using graph::Access;
using graph::FileLocks;
using graph::Permission;
using graph::Permissions;

// Files of one disk, each opened by a process of its own.
class Processes : public testing::Test {
 protected:
  Processes() { disk.make("image", 512); }
  std::unique_ptr<EngineFile> open() {
    std::unique_ptr<EngineFile> file;
    EXPECT_TRUE(world.run(open_into(file)));
    return file;
  }
  // "100 101 201": the bytes that anybody locks.
  std::string locked() const {
    std::string list;
    for (const std::uint64_t base : {100U, 200U}) {
      for (std::uint64_t byte = base; byte < base + 4; ++byte) {
        if (disk.is_locked("image", byte)) list += (list.empty() ? "" : " ") + std::to_string(byte);
      }
    }
    return list;
  }

  sim::Disk disk{1};
  sim::World world{1, disk};

 private:
  Task<> open_into(std::unique_ptr<EngineFile>& file) {
    auto opened = co_await world.home.engine.open("image", OpenFlags{});
    EXPECT_TRUE(opened);
    file = *std::move(opened);
    co_return ok;
  }
};

const Access reader{Permission::consistent_read, Permissions::all()};
const Access writer{Permission::consistent_read | Permission::write, Permissions::all()};
const Access lonely_reader{Permission::consistent_read,
                           Permissions::all().without(Permission::write | Permission::resize)};

TEST_F(Processes, LockTheBytesOfWhatTheyHoldAndOfWhatTheyDoNotShare) {
  const auto file = open();
  FileLocks locks;

  EXPECT_FALSE(locks.prepare(*file, lonely_reader));
  locks.commit(*file);
  EXPECT_EQ(locked(), "100 201 203");

  EXPECT_FALSE(locks.prepare(*file, reader));
  EXPECT_EQ(locked(), "100 201 203");  // until the change is certain
  locks.commit(*file);
  EXPECT_EQ(locked(), "100");

  EXPECT_FALSE(locks.prepare(*file, Access{}));
  locks.commit(*file);
  EXPECT_EQ(locked(), "");
}

TEST_F(Processes, NeverShareWriteWhenTheyWrite) {
  const auto file = open();
  FileLocks locks;

  EXPECT_FALSE(locks.prepare(*file, writer));

  EXPECT_EQ(locked(), "100 101 201");
}

TEST_F(Processes, ReadTogether) {
  const auto one = open();
  const auto two = open();
  FileLocks of_one;
  FileLocks of_two;

  EXPECT_FALSE(of_one.prepare(*one, reader));
  EXPECT_FALSE(of_two.prepare(*two, reader));
}

TEST_F(Processes, AreRefusedInQemusWordsAndKeepNothing) {
  const auto one = open();
  const auto two = open();
  FileLocks of_one;
  FileLocks of_two;
  ASSERT_FALSE(of_one.prepare(*one, writer));
  of_one.commit(*one);

  const auto writing = of_two.prepare(*two, writer);
  ASSERT_TRUE(writing);
  EXPECT_EQ(writing->error, 0);
  EXPECT_EQ(writing->message, "Failed to get \"write\" lock");
  EXPECT_EQ(locked(), "100 101 201");
  const auto not_sharing = of_two.prepare(*two, lonely_reader);
  ASSERT_TRUE(not_sharing);
  EXPECT_EQ(not_sharing->message, "Failed to get shared \"write\" lock");

  of_one.release_all(*one);
  EXPECT_EQ(locked(), "");
  EXPECT_FALSE(of_two.prepare(*two, writer));
}

TEST_F(Processes, TakeBackWhatAChangeThatWasGivenUpWouldHaveNeeded) {
  const auto file = open();
  FileLocks locks;
  ASSERT_FALSE(locks.prepare(*file, reader));
  locks.commit(*file);

  ASSERT_FALSE(locks.prepare(*file, writer));
  EXPECT_EQ(locked(), "100 101 201");
  locks.abort(*file);

  EXPECT_EQ(locked(), "100");
}

TEST_F(Processes, LearnWhyAFileCanNotBeLocked) {
  disk.traits.knows_locks = false;
  const auto file = open();
  FileLocks locks;

  const auto refused = locks.prepare(*file, reader);

  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->error, EOPNOTSUPP);
}

class FileLocksOfTheKernel : public testing::TestWithParam<EngineKind> {};
INSTANTIATE_TEST_SUITE_P(Engines, FileLocksOfTheKernel, test::each_engine, test::engine_of_case);

// As another process would: OFD locks belong to the open file description.
TEST_P(FileLocksOfTheKernel, AreSeenByOthersAndEndWithTheFile) {
  test::TempDir folder;
  test::RealWorld world(GetParam());
  if (!world.missing().empty()) GTEST_SKIP() << world.missing();
  std::ofstream(folder.path("image")) << "content";
  const auto is_locked = [&](off_t byte) {
    const int other = ::open(folder.path("image").c_str(), O_RDWR | O_CLOEXEC);
    struct flock wanted{};
    wanted.l_type = F_WRLCK;
    wanted.l_start = byte;
    wanted.l_len = 1;
    EXPECT_EQ(::fcntl(other, F_OFD_GETLK, &wanted), 0);
    ::close(other);
    return wanted.l_type != F_UNLCK;
  };
  const auto work = [](test::RealWorld& own, std::string path, auto& locked) -> Task<> {
    OpenFlags flags;
    flags.access = FileAccess::read_write;
    auto file = co_await own.home.engine.open(path, flags);
    EXPECT_TRUE(file);
    FileLocks locks;
    EXPECT_FALSE(locks.prepare(**file, writer));
    locks.commit(**file);
    EXPECT_TRUE(locked(100) && locked(101) && locked(201));
    EXPECT_FALSE(locked(200) || locked(203));
    EXPECT_TRUE(co_await (*file)->prepare_reopen(FileAccess::read_only));
    (*file)->commit_reopen();
    EXPECT_TRUE(locked(101));  // through the change of the descriptor
    EXPECT_TRUE(co_await (*file)->close());
    EXPECT_FALSE(locked(100) || locked(101) || locked(201));
    co_return ok;
  };
  EXPECT_TRUE(world.run(work(world, folder.path("image"), is_locked)));
}

}  // namespace
