#include "src/address.h"

#include <gtest/gtest.h>

namespace app {
namespace {

std::string complaint(std::string_view text) {
  const auto address = parse_address(text);
  return address ? "" : address.error().message;
}

TEST(Address, IsReadAndWrittenAlike) {
  for (const char* text :
       {"tcp:127.0.0.1:10809", "tcp:[::1]:0", "tcp:host.example:65535", "unix:/run/gantry.sock",
        "unix:relative.sock", "vsock:any:10809", "vsock:local:1", "vsock:host:0",
        "vsock:3:4294967294", "systemd", "systemd:nbd.socket"}) {
    const auto address = parse_address(text);
    ASSERT_TRUE(address) << address.error().message;
    EXPECT_EQ(address->text(), text);
  }
}

TEST(Address, PutsARelativePathIntoItsFolder) {
  EXPECT_EQ(parse_address("unix:g.sock", "conf")->path, "conf/g.sock");
  EXPECT_EQ(parse_address("unix:/g.sock", "conf")->path, "/g.sock");
}

TEST(Address, SaysWhatIsWrong) {
  EXPECT_EQ(complaint("10809"),
            "'10809' is no address: expected unix:PATH, tcp:HOST:PORT, "
            "vsock:CID:PORT or systemd");
  EXPECT_EQ(complaint("tcp:host"), "'tcp:host' is no address: expected tcp:HOST:PORT");
  EXPECT_EQ(complaint("tcp:[::1]"), "'tcp:[::1]' is no address: expected tcp:HOST:PORT");
  EXPECT_EQ(complaint("tcp:host:65536"),
            "'tcp:host:65536' is no address: a port is a number from 0 to 65535");
  EXPECT_EQ(complaint("tcp:host:"),
            "'tcp:host:' is no address: a port is a number from 0 to 65535");
  EXPECT_EQ(
      complaint("tcp::1"),
      "'tcp::1' is no address: the host is missing; 0.0.0.0 or [::] listens on every interface");
  EXPECT_EQ(complaint("tcp:::1:10809"),
            "'tcp:::1:10809' is no address: an IPv6 address stands in brackets, as in "
            "tcp:[::1]:10809");
  EXPECT_EQ(complaint("vsock:10809"), "'vsock:10809' is no address: expected vsock:CID:PORT");
  for (const char* cid : {"", "all", "-1", "1x", "4294967295", "0x1"}) {
    EXPECT_EQ(
        complaint("vsock:" + std::string(cid) + ":1"),
        "'vsock:" + std::string(cid) + ":1' is no address: a CID is any, local, host, or a number");
  }
  for (const char* port : {"", "-1", "4294967295", "1:1"}) {
    EXPECT_EQ(complaint("vsock:any:" + std::string(port)),
              "'vsock:any:" + std::string(port) +
                  "' is no address: a port of vsock is a number from 0 to 4294967294");
  }
  EXPECT_EQ(complaint("systemd:"),
            "'systemd:' is no address: the name is missing; \"systemd\" takes them all");
  EXPECT_FALSE(parse_address("systemd-nbd"));
  EXPECT_EQ(complaint("unix:"), "'unix:' is no address: the path is missing");
  EXPECT_FALSE(parse_address("unix:/" + std::string(107, 'x')));
  EXPECT_TRUE(parse_address("unix:/" + std::string(106, 'x')));
}

TEST(Uri, EncodesWhatHasAMeaningInIt) {
  EXPECT_EQ(nbd_uri(*parse_address("tcp:127.0.0.1:10809"), "disk"), "nbd://127.0.0.1:10809/disk");
  EXPECT_EQ(nbd_uri(*parse_address("tcp:[::1]:9"), ""), "nbd://[::1]:9/");
  EXPECT_EQ(nbd_uri(*parse_address("tcp:h:1"), "a b?#%\xc3\xa4"), "nbd://h:1/a%20b%3F%23%25%C3%A4");
  EXPECT_EQ(nbd_uri(*parse_address("unix:/run/a&b.sock"), "disk"),
            "nbd+unix:///disk?socket=/run/a%26b.sock");
}

TEST(Uri, LeadsToThisMachineWhenTheServerListensEverywhere) {
  EXPECT_EQ(nbd_uri(*parse_address("tcp:0.0.0.0:1"), "x"), "nbd://127.0.0.1:1/x");
  EXPECT_EQ(nbd_uri(*parse_address("tcp:[::]:1"), "x"), "nbd://[::1]:1/x");
}

TEST(Uri, LeadsGuestsToTheMachineTheyRunOn) {
  EXPECT_EQ(nbd_uri(*parse_address("vsock:any:10809"), "disk"), "nbd+vsock://2:10809/disk");
  EXPECT_EQ(nbd_uri(*parse_address("vsock:local:7"), ""), "nbd+vsock://1:7/");
}

TEST(AttachCommands, ForVsockAreThoseOfClientsThatKnowIt) {
  const auto commands = attach_commands(*parse_address("vsock:any:10809"), "a,b");

  ASSERT_EQ(commands.size(), 2u);
  EXPECT_EQ(commands[0], "nbdinfo nbd+vsock://2:10809/a%2Cb");
  EXPECT_EQ(commands[1],
            "qemu-img info --image-opts "
            "driver=nbd,server.type=vsock,server.cid=2,server.port=10809,export=a,,b");
}

TEST(AttachCommands, AreSafeToPasteIntoAShell) {
  const auto tcp = attach_commands(*parse_address("tcp:127.0.0.1:10809"), "it's");
  const auto local = attach_commands(*parse_address("unix:/run/g.sock"), "");

  EXPECT_EQ(tcp, (std::vector<std::string>{"nbdinfo nbd://127.0.0.1:10809/it%27s",
                                           "nbd-client 127.0.0.1 10809 /dev/nbd0 -N 'it'\\''s'",
                                           "qemu-img info nbd://127.0.0.1:10809/it%27s"}));
  EXPECT_EQ(local, (std::vector<std::string>{"nbdinfo 'nbd+unix:///?socket=/run/g.sock'",
                                             "nbd-client -unix /run/g.sock /dev/nbd0",
                                             "qemu-img info 'nbd+unix:///?socket=/run/g.sock'"}));
}

}  // namespace
}  // namespace app
