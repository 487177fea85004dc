#include "src/listen_config.h"

#include <gtest/gtest.h>

#include "src/toml.h"

namespace app {
namespace {

// The value of `listen` in a file of its own.
Result<std::vector<Listen>> read(const std::string& value) {
  TRY(const Options root, parse_toml("listen = " + value + "\n", "conf/a.toml"));
  return read_listen(*root.find("listen"));
}

std::string complaint(const std::string& value) {
  const auto listen = read(value);
  return listen ? "" : listen.error().message;
}

TEST(ListenConfig, TakesAStringATableOrAList) {
  for (const char* value : {"'tcp:h:1'", "['tcp:h:1']", "{ tcp = 'h:1' }", "[{ tcp = 'h:1' }]"}) {
    const auto listen = read(value);
    ASSERT_TRUE(listen) << listen.error().message;
    ASSERT_EQ(listen->size(), 1u);
    EXPECT_EQ(listen->front().address.text(), "tcp:h:1");
    EXPECT_FALSE(listen->front().allow);
  }
}

TEST(ListenConfig, TakesEveryKeyOfATable) {
  const auto listen = read(
      "[{ unix = 'g.sock', mode = '0660', owner = '7', group = 'root' },"
      " { tcp = '[::]:0', allow = ['10.0.0.0/8', '::1'] }, { vsock = 'any:1', allow = [3, 4] },"
      " { systemd = 'admin', allow = ['::1', 3] }, { systemd = '' }]");

  ASSERT_TRUE(listen) << listen.error().message;
  const Listen& local = listen->at(0);
  EXPECT_EQ(local.address.text(), "unix:conf/g.sock");
  EXPECT_EQ(local.file.mode, 0660u);
  EXPECT_EQ(local.file.owner->id, 7u);
  EXPECT_EQ(local.file.group->id, 0u);
  EXPECT_EQ(listen->at(1).allow->networks.size(), 2u);
  EXPECT_EQ(listen->at(2).allow->cids, (std::vector<std::uint32_t>{3, 4}));
  EXPECT_EQ(listen->at(3).address.text(), "systemd:admin");
  EXPECT_EQ(listen->at(4).address.text(), "systemd");
}

struct Mistake {
  const char* value;
  const char* said;  // after "conf/a.toml:1:"
};

// "listen = " has nine characters.
constexpr Mistake mistakes[] = {
    {"7", "1: 'listen': expected a string, a table or a list of them, not an integer"},
    {"true", "1: 'listen': expected a string, a table or a list of them, not true or false"},
    {"[]", "1: 'listen': the list is empty"},
    {"[7]",
     "11: 'listen': expected a string such as \"tcp:127.0.0.1:10809\" or a table, not an integer"},
    {"[['tcp:h:1']]",
     "11: 'listen': expected a string such as \"tcp:127.0.0.1:10809\" or a table, not a list"},
    {"['tcp:h:1', 'tcp:h:1']", "22: 'listen': tcp:h:1 stands there twice"},
    {"['unix:a', { unix = 'a' }]", "23: 'listen': unix:conf/a stands there twice"},
    {"{}", "10: a listener needs one of the keys tcp, unix, vsock and systemd"},
    {"{ allow = ['::1'] }", "10: a listener needs one of the keys tcp, unix, vsock and systemd"},
    {"{ tcp = 'h:1', unix = 'x' }", "25: a listener has one address: 'tcp' or 'unix'"},
    {"{ tcpp = 'h:1' }", "12: unknown key 'tcpp', did you mean 'tcp'?"},
    {"{ tcp = 10809 }", "12: 'tcp': expected a string, not an integer"},
    {"{ tcp = 'h' }", "12: 'tcp:h' is no address: expected tcp:HOST:PORT"},
    {"{ unix = '' }", "12: 'unix': the file name is empty"},
    {"{ unix = 7 }", "12: 'unix': expected a file name, not an integer"},
    {"{ vsock = 'any' }", "12: 'vsock:any' is no address: expected vsock:CID:PORT"},
    {"{ vsock = ['any:1'] }", "12: 'vsock': expected a string, not a list"},
    {"{ systemd = true }", "12: 'systemd': expected a string, not true or false"},
    {"{ tcp = 'h:1', allow = '::1' }", "25: 'allow': expected a list, not a string"},
    {"{ tcp = 'h:1', allow = [] }", "25: 'allow': the list is empty, nobody could connect"},
    {"{ tcp = 'h:1', allow = [1] }",
     "34: 'allow': expected a network such as \"10.0.0.0/8\", not an integer"},
    {"{ tcp = 'h:1', allow = [true] }",
     "34: 'allow': expected a network or a CID, not true or false"},
    {"{ tcp = 'h:1', allow = ['::1', '10.0.0.1/8'] }",
     "41: 'allow': '10.0.0.1/8' is no network: it has bits set after the first 8; the network is "
     "10.0.0.0/8"},
    {"{ vsock = 'any:1', allow = ['10.0.0.0/8'] }",
     "38: 'allow': expected a CID, which is a number, not a string"},
    {"{ vsock = 'any:1', allow = [-1] }",
     "38: 'allow': -1 is no CID: those are from 0 to 4294967294"},
    {"{ vsock = 'any:1', allow = [4294967295] }",
     "38: 'allow': 4294967295 is no CID: those are from 0 to 4294967294"},
    {"{ unix = 'x', allow = ['::1'] }",
     "24: 'allow': a Unix socket has no networks; mode, owner and group say who reaches it"},
    {"{ unix = 'x', mode = 0o660 }", "24: 'mode': expected a string, not an integer"},
    {"{ unix = 'x', mode = '0680' }",
     "24: 'mode': '0680' is none: expected octal digits such as \"0660\""},
    {"{ unix = 'x', mode = '4755' }",
     "24: 'mode': '4755' is none: expected octal digits such as \"0660\""},
    {"{ unix = 'x', mode = '' }", "24: 'mode': '' is none: expected octal digits such as \"0660\""},
    {"{ unix = 'x', owner = 0 }", "24: 'owner': expected a string, not an integer"},
    {"{ unix = 'x', owner = 'no such user' }",
     "24: 'owner': there is no user 'no such user' on this machine"},
    {"{ unix = 'x', owner = '4294967295' }",
     "24: 'owner': there is no user '4294967295' on this machine"},
    {"{ unix = 'x', group = 'no such group' }",
     "24: 'group': there is no group 'no such group' on this machine"},
    {"{ unix = 'x', group = '-1' }", "24: 'group': there is no group '-1' on this machine"},
    {"{ tcp = 'h:1', mode = '0660' }",
     "25: 'mode' is for Unix sockets, and this listener has none"},
    {"{ vsock = 'any:1', owner = '0' }",
     "29: 'owner' is for Unix sockets, and this listener has none"},
    {"{ systemd = '', group = '0' }",
     "26: 'group' is for Unix sockets, and this listener has none"},
};

TEST(ListenConfig, SaysInOneLineWhatIsWrongAndWhere) {
  for (const Mistake& mistake : mistakes) {
    EXPECT_EQ(complaint(mistake.value), "conf/a.toml:1:" + std::string(mistake.said))
        << mistake.value;
  }
}

TEST(ListenConfig, LetsASystemPickSeveralPorts) {
  EXPECT_TRUE(read("['tcp:127.0.0.1:0', 'tcp:127.0.0.1:0', 'vsock:any:0', 'vsock:any:0']"));
}

}  // namespace
}  // namespace app
