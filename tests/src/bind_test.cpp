#include "src/bind.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "src/peer.h"
#include "tests/support/real_world.h"

namespace app {
namespace {

// A folder with room for sockets, in simulated time.
class InAFolder : public testing::Test {
 protected:
  void SetUp() override {
    folder = temporary.folder().string();
    path = folder + "/s";
  }

  Result<Descriptor> bind(const SocketFile& file = {}) {
    return world.run(bind_local(world.clock, path, file));
  }
  std::string complaint(const SocketFile& file = {}) {
    const auto bound = bind(file);
    return bound ? "" : bound.error().message;
  }
  struct stat status() const {
    struct stat result{};
    EXPECT_EQ(::lstat(path.c_str(), &result), 0);
    return result;
  }
  bool answers() const {
    const Descriptor caller(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    path.copy(name.sun_path, sizeof name.sun_path - 1);
    return ::connect(caller.get(), reinterpret_cast<sockaddr*>(&name), sizeof name) == 0;
  }

  sim::World world{1};
  test::TempDir temporary{std::filesystem::temp_directory_path()};
  std::string folder;
  std::string path;
};

TEST_F(InAFolder, ASocketListensAndLeavesNothingElse) {
  const auto socket = bind();

  ASSERT_TRUE(socket) << socket.error().message;
  EXPECT_TRUE(answers());
  const std::filesystem::directory_iterator files(folder);
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

TEST_F(InAFolder, AStaleSocketIsReplaced) {
  ASSERT_TRUE(bind());  // and closed, its file stays
  ASSERT_FALSE(answers());

  const auto socket = bind();

  ASSERT_TRUE(socket) << socket.error().message;
  EXPECT_TRUE(answers());
}

TEST_F(InAFolder, ALiveSocketIsLeftAlone) {
  const auto first = bind();
  const auto inode = status().st_ino;

  EXPECT_EQ(complaint(), "Address already in use");

  EXPECT_EQ(status().st_ino, inode);
  EXPECT_TRUE(answers());
}

TEST_F(InAFolder, WhatIsNoSocketIsLeftAlone) {
  std::ofstream(path) << "precious";
  EXPECT_EQ(complaint(), "Address already in use");
  EXPECT_EQ(std::filesystem::file_size(path), 8u);

  std::filesystem::remove(path);
  std::filesystem::create_symlink(folder + "/elsewhere", path);
  EXPECT_EQ(complaint(), "Address already in use");
  EXPECT_TRUE(std::filesystem::is_symlink(path));
}

TEST_F(InAFolder, TheModeIsExactWhateverTheUmask) {
  for (const mode_t umask : {0077u, 0000u}) {
    const mode_t before = ::umask(umask);
    const auto socket = bind({.mode = 0660, .owner = {}, .group = {}});
    ::umask(before);

    ASSERT_TRUE(socket) << socket.error().message;
    EXPECT_EQ(status().st_mode & 07777, 0660u);
  }
}

TEST_F(InAFolder, TheFileIsGivenToOwnerAndGroup) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  SocketFile file;
  file.owner = {.id = 12, .name = "12"};
  file.group = {.id = 34, .name = "34"};

  const auto socket = bind(file);

  ASSERT_TRUE(socket) << socket.error().message;
  EXPECT_EQ(status().st_uid, 12u);
  EXPECT_EQ(status().st_gid, 34u);
}

// Runs as the user "nobody" until it ends.
class AsNobody {
 public:
  AsNobody() { EXPECT_EQ(::seteuid(65534), 0); }
  ~AsNobody() { EXPECT_EQ(::seteuid(0), 0); }
  AsNobody(const AsNobody&) = delete;
  AsNobody& operator=(const AsNobody&) = delete;
};

TEST_F(InAFolder, ALackingPrivilegeIsNamed) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root, to do without it";
  std::filesystem::permissions(folder, std::filesystem::perms::all);
  SocketFile owned;
  owned.owner = {.id = 12, .name = "backup"};
  SocketFile grouped;
  grouped.group = {.id = 34, .name = "disk"};
  const AsNobody nobody;

  EXPECT_EQ(complaint(owned),
            "Operation not permitted: giving the socket to user 'backup' needs root or the "
            "capability CAP_CHOWN");
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_EQ(complaint(grouped),
            "Operation not permitted: giving the socket to group 'disk' needs root, the capability "
            "CAP_CHOWN, or a gantry that is in the group");
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST_F(InAFolder, AFolderThatIsNotThereOrNotOursIsNamed) {
  path = folder + "/gone/s";
  EXPECT_EQ(complaint(),
            "No such file or directory: the folder '" + folder + "/gone' does not exist");
  std::ofstream(folder + "/file") << "x";
  path = folder + "/file/s";
  EXPECT_EQ(complaint(), "Not a directory: '" + folder + "/file' is no folder");
  if (::geteuid() != 0) GTEST_SKIP() << "the rest needs root, to do without it";
  path = folder + "/s";
  const AsNobody nobody;
  EXPECT_EQ(complaint(),
            "Permission denied: gantry may not create files in the folder '" + folder + "'");
}

TEST_F(InAFolder, AFolderThatSomebodyLocksForEverIsNoReasonToWaitForEver) {
  const Descriptor other(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  ASSERT_EQ(::flock(other.get(), LOCK_EX), 0);

  EXPECT_EQ(complaint(), "another process holds a lock on the folder '" + folder + "'");
}

TEST(BindTcp, SaysWhatWouldHelp) {
  const auto endpoint = [](const char* host, std::uint16_t port) {
    return asio::ip::tcp::endpoint(asio::ip::make_address(host), port);
  };
  EXPECT_EQ(bind_tcp(endpoint("192.0.2.1", 0)).error().message,
            "Cannot assign requested address: this machine does not have that address");
  if (::geteuid() != 0) GTEST_SKIP() << "the rest needs root, to do without it";
  const AsNobody nobody;
  const auto bound = bind_tcp(endpoint("127.0.0.1", 809));
  if (bound) GTEST_SKIP() << "this machine lets everybody use low ports";
  EXPECT_EQ(bound.error().message,
            "Permission denied: ports below 1024 need root or the capability CAP_NET_BIND_SERVICE");
}

TEST(BindVsock, ListensOnAPortThatTheSystemPicks) {
  Address address;
  address.family = Address::Family::vsock;
  address.cid = cid_any;
  const auto socket = bind_vsock(address);
  if (!socket) GTEST_SKIP() << "this kernel: " << socket.error().message;

  const Address real = local_address_of(socket->get());

  EXPECT_EQ(real.family, Address::Family::vsock);
  EXPECT_EQ(real.cid, cid_any);
  EXPECT_NE(real.port, 0u);
}

}  // namespace
}  // namespace app
