#include "src/service_manager.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdlib>

namespace app {
namespace {

// The service manager's end: a datagram socket with a name that has no file.
class Manager : public testing::Test {
 protected:
  void SetUp() override {
    socket = Descriptor(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const std::string name = "@gantry-test-" + std::to_string(::getpid());
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    name.copy(address.sun_path, sizeof address.sun_path);
    address.sun_path[0] = '\0';
    const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    ASSERT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    ::setenv("NOTIFY_SOCKET", name.c_str(), 1);
  }
  void TearDown() override {
    for (const char* name : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}) ::unsetenv(name);
  }
  std::string heard() {
    std::array<char, 4096> text{};
    const ssize_t n = ::recv(socket.get(), text.data(), text.size(), 0);
    return n < 0 ? "" : std::string(text.data(), static_cast<std::size_t>(n));
  }

  Descriptor socket;
};

TEST_F(Manager, HearsHowTheDaemonIs) {
  ServiceManager manager;

  manager.ready("2 exports");
  EXPECT_EQ(heard(), "STATUS=2 exports\nREADY=1\n");
  manager.alive();
  EXPECT_EQ(heard(), "WATCHDOG=1\n");
  manager.reloading();
  const std::string reloading = heard();
  EXPECT_TRUE(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC=")) << reloading;
  manager.stopping("bye");
  EXPECT_EQ(heard(), "STATUS=bye\nSTOPPING=1\n");
}

TEST_F(Manager, IsNotTalkedIntoMoreLines) {
  ServiceManager().ready("a\nSTOPPING=1");

  EXPECT_EQ(heard(), "STATUS=a\\x0aSTOPPING=1\nREADY=1\n");
}

TEST_F(Manager, SetsTheIntervalOfTheWatchdogForThisProcessOnly) {
  ::setenv("WATCHDOG_USEC", "3000000", 1);
  ::setenv("WATCHDOG_PID", std::to_string(::getpid()).c_str(), 1);
  EXPECT_EQ(ServiceManager().watchdog(), std::chrono::seconds(3));
  EXPECT_EQ(std::getenv("WATCHDOG_USEC"), nullptr);

  ::setenv("WATCHDOG_USEC", "3000000", 1);
  ::setenv("WATCHDOG_PID", "1", 1);
  EXPECT_FALSE(ServiceManager().watchdog());
}

TEST(ServiceManager, ThatIsNotThereChangesNothing) {
  ::unsetenv("NOTIFY_SOCKET");
  ServiceManager manager;

  manager.ready("");
  manager.reloading();
  manager.alive();
  manager.stopping("");

  EXPECT_FALSE(manager.watchdog());
  const auto sockets = take_inherited_sockets();
  ASSERT_TRUE(sockets);
  EXPECT_TRUE(sockets->empty());
}

}  // namespace
}  // namespace app
