// The node of a block device: on a simulated one, and on loop devices where this machine lets us.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "graph/base/file_descriptor.h"
#include "tests/support/file_graph.h"

namespace {

using graph::Permission;
using test::code_of;
using test::FileGraph;
using test::RealPlace;
using test::SimPlace;
using test::yes;
using testing::HasSubstr;

constexpr std::uint64_t size = 1 * MiB;

class HostDevice : public testing::Test {
 protected:
  HostDevice() {
    disk.traits.is_quick = false;
    disk.make_device("dev", size);
    device.driver = "host_device";
  }
  void serve() {
    ASSERT_OK(device.open("dev"));
    ASSERT_OK(device.attach());
  }
  SimPlace place;
  sim::Disk& disk = place.disk;
  FileGraph device{place};
};

TEST_F(HostDevice, HasTheSizeOfTheDeviceAndNeverGrows) {
  serve();

  EXPECT_EQ(device.view->size(), size);
  EXPECT_FALSE(device.node->can_grow());
  EXPECT_OK(device.write(size - 3, "end"));
  EXPECT_EQ(device.read(size - 3, 3).value_or(""), "end");
}

TEST_F(HostDevice, IsFullAtItsEndForWhoMayGrowIt) {
  serve();

  const Result<> written = device.write(size - 2, "past");
  const Result<> zeroed = device.zero({size - 512, 1024}, true);

  EXPECT_EQ(code_of(written), Errc::no_space);
  EXPECT_EQ(written.error().offset, size);
  EXPECT_EQ(written.error().message, "disk0: host_device: the device ends at 1048576");
  EXPECT_EQ(code_of(zeroed), Errc::no_space);
  EXPECT_EQ(device.read(size - 2, 2).value_or(""), std::string(2, '\0'));
}

TEST_F(HostDevice, ZeroesByMeansOfItsOwn) {
  serve();
  ASSERT_OK(device.write(0, std::string(64 * KiB, 'a')));

  EXPECT_OK(device.zero({0, 16 * KiB}, false));
  EXPECT_EQ(disk.calls(sim::Call::device), 1U);
  EXPECT_OK(device.zero({16 * KiB, 16 * KiB}, true));
  EXPECT_EQ(disk.calls(sim::Call::fallocate), 1U);
  EXPECT_OK(device.zero({32 * KiB + 1, 1024}, true));  // parts of blocks are written

  const std::string content = device.read(0, 64 * KiB).value_or("");
  EXPECT_EQ(content.substr(0, 32 * KiB), std::string(32 * KiB, '\0'));
  EXPECT_EQ(content[32 * KiB], 'a');
  EXPECT_EQ(content.substr(32 * KiB + 1, 1024), std::string(1024, '\0'));
  EXPECT_EQ(content.substr(33 * KiB + 1), std::string(31 * KiB - 1, 'a'));
}

TEST_F(HostDevice, RefusesFastZeroesThatTheDeviceWouldHaveToWrite) {
  disk.traits.zeroes_quickly = disk.traits.punches_holes = false;
  serve();
  ASSERT_OK(device.write(0, std::string(4096, 'a')));

  EXPECT_EQ(code_of(device.zero({0, 4096}, true, true)), Errc::not_supported);
  EXPECT_EQ(code_of(device.zero({0, 4096}, false, true)), Errc::not_supported);

  EXPECT_EQ(disk.calls(sim::Call::device), 0U);
  EXPECT_EQ(device.read(0, 4096).value_or(""), std::string(4096, 'a'));
  EXPECT_OK(device.zero({0, 4096}, true));
  EXPECT_EQ(disk.calls(sim::Call::device), 1U);
}

TEST_F(HostDevice, DiscardsWholeBlocksOnlyAndInPieces) {
  serve();
  ASSERT_OK(device.write(0, std::string(4096, 'a')));

  EXPECT_OK(device.discard({1, 600}));
  EXPECT_EQ(disk.calls(sim::Call::device), 0U);
  EXPECT_OK(device.discard({1, 1600}));

  EXPECT_EQ(disk.calls(sim::Call::device), 1U);
  EXPECT_EQ(device.read(0, 512).value_or(""), std::string(512, 'a'));
  EXPECT_EQ(device.read(1536, 512).value_or(""), std::string(512, 'a'));
  EXPECT_EQ(device.node->limits().max_discard, 1 * GiB);  // of one call
}

TEST_F(HostDevice, AsksOnceWhetherItCanDiscard) {
  disk.traits.discards = false;
  serve();

  EXPECT_OK(device.discard({0, 4096}));  // advice
  EXPECT_OK(device.discard({0, 4096}));

  EXPECT_EQ(disk.calls(sim::Call::device), 1U);
}

TEST_F(HostDevice, IsAllDataToWhoAsks) {
  serve();

  EXPECT_EQ(device.map({0, size}), "data 1048576");
  EXPECT_EQ(disk.calls(sim::Call::seek), 0U);
}

TEST_F(HostDevice, NeverFlushesAgainOnceAFlushHasFailed) {
  serve();
  ASSERT_OK(device.write(0, "abc"));
  disk.fail(sim::Call::sync, 1, EIO);

  EXPECT_EQ(code_of(device.flush()), Errc::io_error);
  EXPECT_EQ(code_of(device.flush()), Errc::io_error);

  EXPECT_EQ(disk.calls(sim::Call::sync), 1U);
}

TEST_F(HostDevice, IsAsLongAsTheDeviceForWhoAttachesLater) {
  serve();
  disk.cut("dev", 2 * size);
  EXPECT_EQ(device.node->size(), size);

  std::unique_ptr<graph::BlockBackend> first = std::move(device.view);
  ASSERT_OK(device.attach(Permission::consistent_read));

  EXPECT_EQ(device.view->size(), 2 * size);
  EXPECT_OK(device.read(2 * size - 1, 1));
  ASSERT_OK(device.detach());
  device.view = std::move(first);
}

TEST_F(HostDevice, KeepsItsSizeWhereAViewWouldLoseBytes) {
  ASSERT_OK(device.open("dev"));
  ASSERT_OK(device.attach_export());
  disk.cut("dev", size / 2);

  std::unique_ptr<graph::BlockBackend> first = std::move(device.view);
  ASSERT_OK(device.attach_export());

  EXPECT_EQ(device.view->size(), size);
  EXPECT_THAT(
      place.log().warnings,
      testing::ElementsAre(HasSubstr("the device has 524288 bytes now instead of 1048576")));
  const auto read = device.read(size / 2 - 512, 1024);
  EXPECT_EQ(code_of(read), Errc::io_error);
  EXPECT_EQ(read.error().offset, size / 2);
  EXPECT_THAT(read.error().message, HasSubstr(": the device has only 524288 bytes now"));
  const auto written = device.write(size - 512, std::string(512, 'a'));
  EXPECT_EQ(code_of(written), Errc::io_error);  // the system says: no space
  ASSERT_OK(device.detach());
  device.view = std::move(first);
}

TEST_F(HostDevice, IsResizedOnlyToTheSizeThatItHas) {
  serve();
  EXPECT_EQ(code_of(device.resize(2 * size)), Errc::not_supported);
  EXPECT_EQ(code_of(device.resize(size / 2)), Errc::not_supported);
  disk.cut("dev", 2 * size);

  EXPECT_OK(device.resize(2 * size));

  EXPECT_EQ(device.view->size(), 2 * size);
}

TEST_F(HostDevice, SaysThatTheDeviceIsGone) {
  serve();
  disk.cut("dev", 0);

  const auto read = device.read(0, 512);
  const auto written = device.write(0, std::string(512, 'a'));

  EXPECT_EQ(code_of(read), Errc::io_error);
  EXPECT_THAT(read.error().message, HasSubstr(": the device is gone"));
  EXPECT_EQ(code_of(written), Errc::io_error);
  EXPECT_THAT(written.error().message, HasSubstr(": the device is gone"));
}

TEST_F(HostDevice, KeepsASecondWriterAway) {
  serve();
  FileGraph second(place);
  second.driver = "host_device";
  ASSERT_OK(second.open("dev"));

  EXPECT_EQ(code_of(second.attach()), Errc::busy);
}

TEST_F(HostDevice, IsNoFileAndAFileIsNoDevice) {
  disk.make("file", 4096);

  const Result<> device_on_file = device.open("file");
  FileGraph file(place);
  const Result<> file_on_device = file.open("dev");

  EXPECT_EQ(code_of(device_on_file), Errc::invalid_argument);
  EXPECT_EQ(device_on_file.error().message,
            "disk0: host_device: 'file' is not a block device: use the driver 'file'");
  EXPECT_EQ(code_of(file_on_device), Errc::invalid_argument);
  EXPECT_EQ(file_on_device.error().message,
            "disk0: file: 'dev' is a block device: use the driver 'host_device'");
}

// A loop device over a file of the test.
class LoopDevice {
 public:
  LoopDevice(const std::string& path, std::uint64_t length) : path_(path) {
    const FileDescriptor control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
    const FileDescriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!control || !file || ::ftruncate(file.number(), static_cast<off_t>(length)) < 0) {
      missing_ = "no loop devices: " + std::generic_category().message(errno);
      return;
    }
    loop_config config{};
    config.fd = static_cast<unsigned>(file.number());
    for (int attempt = 0; attempt < 20; ++attempt) {  // somebody may be quicker
      const int number = ::ioctl(control.number(), LOOP_CTL_GET_FREE);
      if (number < 0) break;
      name_ = "/dev/loop" + std::to_string(number);
      device_ = FileDescriptor(::open(name_.c_str(), O_RDWR | O_CLOEXEC));
      if (device_ && ::ioctl(device_.number(), LOOP_CONFIGURE, &config) == 0) return;
    }
    missing_ = "no loop device: " + std::generic_category().message(errno);
    device_.reset();
  }
  LoopDevice(const LoopDevice&) = delete;
  LoopDevice& operator=(const LoopDevice&) = delete;
  ~LoopDevice() {
    if (device_) ::ioctl(device_.number(), LOOP_CLR_FD);
  }
  const std::string& missing() const { return missing_; }
  const std::string& name() const { return name_; }
  void grow(std::uint64_t length) {
    EXPECT_EQ(::truncate(path_.c_str(), static_cast<off_t>(length)), 0);
    EXPECT_EQ(::ioctl(device_.number(), LOOP_SET_CAPACITY), 0);
  }

 private:
  const std::string path_;
  std::string name_;
  std::string missing_;
  FileDescriptor device_;
};

class HostDeviceOnALoopDevice : public testing::TestWithParam<EngineKind> {
 protected:
  void SetUp() override {
    if (!place.missing().empty()) GTEST_SKIP() << place.missing();
    if (!loop.missing().empty()) GTEST_SKIP() << loop.missing();
    device.driver = "host_device";
  }
  RealPlace place{GetParam()};
  LoopDevice loop{place.path("disk"), size};
  FileGraph device{place};
};
INSTANTIATE_TEST_SUITE_P(Engines, HostDeviceOnALoopDevice, test::each_engine, test::engine_of_case);

TEST_P(HostDeviceOnALoopDevice, StoresZeroesAndDiscards) {
  ASSERT_OK(device.open(loop.name()));
  ASSERT_OK(device.attach());
  std::string expected(size, 'a');

  ASSERT_OK(device.write(0, expected));
  EXPECT_OK(device.write(4095, "bcd"));
  EXPECT_OK(device.zero({64 * KiB, 64 * KiB}, false));
  EXPECT_OK(device.zero({256 * KiB, 256 * KiB}, true));
  EXPECT_OK(device.flush());
  const std::uint64_t before = place.allocated("disk");
  EXPECT_OK(device.discard({512 * KiB, 256 * KiB}));
  EXPECT_OK(device.flush());

  expected.replace(4095, 3, "bcd");
  expected.replace(64 * KiB, 64 * KiB, 64 * KiB, '\0');
  expected.replace(256 * KiB, 256 * KiB, 256 * KiB, '\0');
  expected.replace(512 * KiB, 256 * KiB, 256 * KiB, '\0');
  EXPECT_TRUE(device.read(0, size).value_or("") == expected);
  EXPECT_TRUE(place.content("disk") == expected);
  EXPECT_LE(place.allocated("disk"), before - 192 * KiB);
  EXPECT_EQ(device.map({0, size}), "data 1048576");
}

TEST_P(HostDeviceOnALoopDevice, WorksWithoutThePageCache) {
  ASSERT_OK(device.open(loop.name(), {{"cache.direct", yes()}}));
  ASSERT_OK(device.attach());
  EXPECT_GE(device.node->limits().request_alignment, 512U);

  EXPECT_OK(device.write(511, "bb"));

  EXPECT_EQ(device.read(510, 4).value_or(""), std::string("\0bb\0", 4));
  EXPECT_EQ(place.content("disk").substr(510, 4), std::string("\0bb\0", 4));
}

TEST_P(HostDeviceOnALoopDevice, SeesThatTheDeviceHasGrown) {
  ASSERT_OK(device.open(loop.name()));
  ASSERT_OK(device.attach(Permission::consistent_read));
  EXPECT_EQ(device.view->size(), size);
  loop.grow(2 * size);
  ASSERT_OK(device.detach());

  ASSERT_OK(device.attach());

  EXPECT_EQ(device.view->size(), 2 * size);
  EXPECT_OK(device.write(2 * size - 3, "end"));
  EXPECT_EQ(code_of(device.write(2 * size - 3, "past")), Errc::no_space);
}

TEST_P(HostDeviceOnALoopDevice, KeepsASecondWriterAway) {
  ASSERT_OK(device.open(loop.name()));
  ASSERT_OK(device.attach());
  FileGraph second(place);
  second.driver = "host_device";
  ASSERT_OK(second.open(loop.name()));

  EXPECT_EQ(code_of(second.attach()), Errc::busy);
}

TEST_P(HostDeviceOnALoopDevice, IsNotOpenedAsAFile) {
  device.driver = "file";

  EXPECT_THAT(test::message_of(device.open(loop.name())),
              HasSubstr("is a block device: use the driver 'host_device'"));
}

}  // namespace
