// Control clients over a line in memory, and the commands, on a site in a simulated worker.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/control/client.h"
#include "src/control/server.h"
#include "tests/src/small_site.h"
#include "tests/support/sim_stream.h"

namespace app::control {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* one_disk =
    "[nodes.m]\ndriver = 'memory'\nsize = '1M'\n[exports.disk]\nnode = 'm'\nwritable = true\n";

class ControlTest : public testing::Test, protected Host {
 protected:
  explicit ControlTest(const char* config = one_disk) : small_(config) {
    EXPECT_EQ(small_.open(), "");
  }
  ~ControlTest() override {
    clients_.clear();
    stop();
    EXPECT_EQ(small_.close(), "");
  }

  Site& site() override { return small_.site; }
  void quit() override { ++quits_; }

  sim::Scheduler& scheduler() { return small_.world.scheduler; }
  void settle() { scheduler().run(); }
  void stop() { EXPECT_TRUE(small_.world.run(stopping())); }
  Task<> stopping() {
    co_await server_.stop();
    co_return ok;
  }

  sim::SimStream& connect(sim::Line line = {}) {
    sim::StreamPair pair = sim::stream_pair(scheduler(), line);
    server_.receive(std::move(pair.server));
    clients_.push_back(std::move(pair.client));
    return *clients_.back();
  }
  static void say(sim::SimStream& client, const std::string& text) {
    const ConstBuffers list(bytes_of(text));
    const Result<std::size_t> sent = client.write_now(list);
    EXPECT_TRUE(sent && *sent == text.size());
  }
  // What the server has said since, line by line.
  std::vector<std::string> hear(sim::SimStream& client) {
    settle();
    std::string text;
    std::array<std::byte, 4096> some{};
    while (true) {
      const Result<std::size_t> got = client.read_now(some);
      if (!got || *got == 0) break;
      text.append(reinterpret_cast<const char*>(some.data()), *got);
      settle();
    }
    std::vector<std::string> lines;
    for (std::size_t end = 0; (end = text.find("\r\n")) != text.npos; text.erase(0, end + 2)) {
      lines.push_back(text.substr(0, end));
    }
    EXPECT_EQ(text, "");
    return lines;
  }
  // A client that has agreed, and has heard it.
  sim::SimStream& ready_client(sim::Line line = {}) {
    sim::SimStream& client = connect(line);
    say(client, "{\"execute\": \"qmp_capabilities\"}");
    EXPECT_EQ(hear(client).size(), 2U);
    return client;
  }
  std::vector<std::string> ask(sim::SimStream& client, const std::string& text) {
    say(client, text);
    return hear(client);
  }
  // The reply to one command with these arguments.
  std::string run(sim::SimStream& client, const std::string& command,
                  const std::string& arguments = "{}") {
    const auto lines =
        ask(client, "{\"execute\": \"" + command + "\", \"arguments\": " + arguments + "}");
    EXPECT_EQ(lines.size(), 1U);
    return lines.empty() ? "" : lines.back();
  }
  static std::string error(const std::string& text, const std::string& kind = "GenericError") {
    return "{\"error\": {\"class\": \"" + kind + "\", \"desc\": \"" + text + "\"}}";
  }

  SmallSite small_;
  Server server_{small_.world.home, *this};
  std::vector<std::unique_ptr<sim::SimStream>> clients_;
  int quits_ = 0;
};

const std::string done = "{\"return\": {}}";

TEST_F(ControlTest, GreetsAndAgreesFirst) {
  sim::SimStream& client = connect();
  EXPECT_THAT(hear(client),
              ElementsAre("{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 2, "
                          "\"major\": 7}, \"package\": \"gantry " GANTRY_VERSION
                          "\"}, \"capabilities\": [\"oob\"]}}"));

  const std::string expecting =
      error("Expecting capabilities negotiation with 'qmp_capabilities'", "CommandNotFound");
  EXPECT_EQ(run(client, "query-version"), expecting);
  EXPECT_EQ(run(client, "nonsense"), expecting);
  EXPECT_EQ(run(client, "qmp_capabilities", "{\"x\": 1}"), error("Parameter 'x' is unexpected"));
  EXPECT_EQ(run(client, "qmp_capabilities", "{\"enable\": [\"foo\"]}"),
            error("Parameter 'enable[0]' does not accept value 'foo'"));
  EXPECT_EQ(run(client, "qmp_capabilities", "{\"enable\": [\"oob\"]}"), done);
  EXPECT_EQ(
      run(client, "qmp_capabilities"),
      error("Capabilities negotiation is already complete, command ignored", "CommandNotFound"));
  EXPECT_THAT(run(client, "query-version"), HasSubstr("\"package\""));
}

TEST_F(ControlTest, EchoesTheIdWhateverItIs) {
  sim::SimStream& client = ready_client();
  for (const char* id : {"null", "1", "\"a\"", "{\"a\": [1, null]}", "1.5"}) {
    EXPECT_THAT(ask(client, "{\"execute\": \"quite\", \"id\": " + std::string(id) + "}"),
                ElementsAre("{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"The command "
                            "quite has not been found\"}, \"id\": " +
                            std::string(id) + "}"));
  }
}

TEST_F(ControlTest, RefusesWhatIsNoRequest) {
  sim::SimStream& client = ready_client();
  const auto said = [&](const std::string& text) {
    const auto lines = ask(client, text);
    return lines.size() == 1 ? lines.front() : "";
  };
  EXPECT_EQ(said("[1]"), error("QMP input must be a JSON object"));
  EXPECT_EQ(said("{}"), error("QMP input lacks member 'execute'"));
  EXPECT_EQ(said("{\"execute\": 3}"), error("QMP input member 'execute' must be a string"));
  EXPECT_EQ(said("{\"execute\": \"quit\", \"arguments\": []}"),
            error("QMP input member 'arguments' must be an object"));
  EXPECT_EQ(said("{\"execute\": \"quit\", \"more\": 1}"),
            error("QMP input member 'more' is unexpected"));
  EXPECT_EQ(said("{\"exec-oob\": \"quit\"}"), error("QMP input member 'exec-oob' is unexpected"));
  EXPECT_EQ(said("{\"a\":1,\"a\":1}"), error("JSON parse error, duplicate key"));
  EXPECT_EQ(quits_, 0);
}

TEST_F(ControlTest, TakesExecOobFromWhoHasAgreedOnIt) {
  sim::SimStream& client = connect();
  hear(client);
  EXPECT_EQ(run(client, "qmp_capabilities", "{\"enable\": [\"oob\"]}"), done);

  EXPECT_THAT(ask(client, "{\"exec-oob\": \"quit\"}"),
              ElementsAre(error("The command quit does not support OOB")));
  EXPECT_THAT(ask(client, "{\"exec-oob\": \"quit\", \"execute\": \"quit\"}"),
              ElementsAre(error("QMP input member 'execute' clashes with 'exec-oob'")));
  EXPECT_THAT(ask(client, "{\"exec-oob\": \"qmp_capabilities\"}"),
              ElementsAre(error("The command qmp_capabilities does not support OOB")));
  EXPECT_EQ(quits_, 0);
}

TEST_F(ControlTest, ChecksArguments) {
  sim::SimStream& client = ready_client();
  const auto add = [&](const std::string& arguments) {
    return run(client, "block-dirty-bitmap-add", arguments);
  };
  EXPECT_EQ(add("{}"), error("Parameter 'node' is missing"));
  EXPECT_EQ(add("{\"foo\": 1, \"node\": \"m\"}"), error("Parameter 'name' is missing"));
  EXPECT_EQ(add("{\"node\": 3, \"name\": \"b\"}"),
            error("Invalid parameter type for 'node', expected: string"));
  EXPECT_EQ(add("{\"node\": \"m\", \"name\": \"b\", \"foo\": 1}"),
            error("Parameter 'foo' is unexpected"));
  EXPECT_EQ(add("{\"node\": \"m\", \"name\": \"b\", \"disabled\": 1}"),
            error("Invalid parameter type for 'disabled', expected: boolean"));
  EXPECT_EQ(add("{\"node\": \"m\", \"name\": \"b\", \"granularity\": \"512\"}"),
            error("Parameter 'granularity' expects uint64"));
  for (const char* number : {"-3", "4294967296", "18446744073709551615"}) {
    EXPECT_EQ(
        add("{\"node\": \"m\", \"name\": \"b\", \"granularity\": " + std::string(number) + "}"),
        error("Parameter 'granularity' expects uint32_t"));
  }
  EXPECT_EQ(run(client, "block-dirty-bitmap-merge",
                "{\"node\": \"m\", \"target\": \"b\", \"bitmaps\": 3}"),
            error("Invalid parameter type for 'bitmaps', expected: array"));
}

TEST_F(ControlTest, AnswersInOrderHoweverTheBytesArrive) {
  for (const sim::Segments segments : sim::all_segments) {
    sim::Line line;
    line.segments = segments;
    sim::SimStream& client = ready_client(line);
    std::string many;
    for (int i = 0; i < 20; ++i) {
      many += "{\"execute\": \"query-block-exports\", \"id\": " + std::to_string(i) + "}";
    }
    const auto lines = ask(client, many);
    ASSERT_EQ(lines.size(), 20U);
    for (int i = 0; i < 20; ++i) {
      EXPECT_THAT(lines[static_cast<std::size_t>(i)],
                  HasSubstr("\"id\": " + std::to_string(i) + "}"));
    }
  }
}

TEST_F(ControlTest, DescribesNodesAndExports) {
  sim::SimStream& client = ready_client();
  EXPECT_EQ(run(client, "block-dirty-bitmap-add", "{\"node\": \"m\", \"name\": \"b\"}"), done);
  EXPECT_EQ(run(client, "query-block-exports"),
            "{\"return\": [{\"node-name\": \"m\", \"shutting-down\": false, \"type\": \"nbd\", "
            "\"id\": \"disk\"}]}");
  EXPECT_EQ(
      run(client, "query-named-block-nodes", "{\"flat\": true}"),
      "{\"return\": [{\"node-name\": \"m\", \"drv\": \"memory\", \"ro\": false, \"file\": "
      "\"json:{\\\"driver\\\": \\\"memory\\\", \\\"size\\\": 1048576}\", \"image\": "
      "{\"virtual-size\": 1048576, \"filename\": \"json:{\\\"driver\\\": \\\"memory\\\", "
      "\\\"size\\\": 1048576}\", \"format\": \"memory\", \"actual-size\": 0}, \"cache\": "
      "{\"no-flush\": false, \"direct\": false, \"writeback\": true}, \"detect_zeroes\": \"off\", "
      "\"backing_file_depth\": 0, \"encrypted\": false, \"write_threshold\": 0, \"iops\": 0, "
      "\"iops_rd\": 0, \"iops_wr\": 0, \"bps\": 0, \"bps_rd\": 0, \"bps_wr\": 0, "
      "\"dirty-bitmaps\": [{\"name\": \"b\", \"recording\": true, \"persistent\": false, \"busy\": "
      "false, \"granularity\": 65536, \"count\": 0}]}]}");
}

TEST_F(ControlTest, NamesAllItsCommands) {
  sim::SimStream& client = ready_client();
  const std::string names = run(client, "query-commands");
  EXPECT_THAT(names, HasSubstr("{\"name\": \"qmp_capabilities\"}"));
  for (const Command& command : commands()) {
    EXPECT_THAT(names, HasSubstr("{\"name\": \"" + std::string(command.name) + "\"}"));
  }
}

TEST_F(ControlTest, ChangesBitmapsBesideRequests) {
  sim::SimStream& client = ready_client();
  const auto command = [&](const std::string& name, const std::string& bitmap) {
    return run(client, "block-dirty-bitmap-" + name,
               "{\"node\": \"m\", \"name\": \"" + bitmap + "\"}");
  };
  const auto write = [&](std::uint64_t offset) {
    const std::string byte = "x";
    const ConstBuffers data(bytes_of(byte));
    EXPECT_TRUE(small_.world.run(small_.view("disk").write(offset, data)));
  };
  const auto dirty = [&](const std::string& name) {
    return small_.view("disk").node().bitmaps().find(name)->dirty_bytes();
  };
  EXPECT_EQ(command("add", "a"), done);
  EXPECT_EQ(run(client, "block-dirty-bitmap-add",
                "{\"node\": \"m\", \"name\": \"b\", \"granularity\": 512, \"disabled\": true}"),
            done);
  write(0);
  EXPECT_EQ(dirty("a"), 64 * KiB);
  EXPECT_EQ(dirty("b"), 0U);

  EXPECT_EQ(command("enable", "b"), done);
  EXPECT_EQ(command("disable", "a"), done);
  write(100 * KiB);
  EXPECT_EQ(dirty("a"), 64 * KiB);
  EXPECT_EQ(dirty("b"), 512U);

  const std::string merge =
      "{\"node\": \"m\", \"target\": \"b\", \"bitmaps\": [\"a\", {\"node\": "
      "\"m\", \"name\": \"b\"}]}";
  EXPECT_EQ(run(client, "block-dirty-bitmap-merge", merge), done);
  EXPECT_EQ(dirty("b"), 64 * KiB + 512);
  EXPECT_EQ(command("clear", "b"), done);
  EXPECT_EQ(dirty("b"), 0U);
  EXPECT_EQ(command("remove", "b"), done);
  EXPECT_EQ(command("remove", "b"), error("Dirty bitmap 'b' not found"));
  EXPECT_EQ(command("add", "a"), error("Bitmap already exists: a"));
  EXPECT_EQ(command("add", ""), error("Bitmap name cannot be empty"));
  EXPECT_EQ(run(client, "block-dirty-bitmap-add",
                "{\"node\": \"m\", \"name\": \"p\", \"persistent\": true}"),
            error("Can't store persistent bitmaps to m: Operation not supported"));
}

class TwoDisks : public ControlTest {
 protected:
  TwoDisks()
      : ControlTest(
            "[nodes.m]\ndriver = 'memory'\nsize = '1M'\n[exports.disk]\nnode = 'm'\n"
            "[nodes.n]\ndriver = 'memory'\nsize = '1M'\n[exports.other]\nnode = 'n'\n"
            "[nodes.small]\ndriver = 'memory'\nsize = '64K'\n") {}
};

TEST_F(TwoDisks, MergesAcrossNodesAllOrNothing) {
  sim::SimStream& client = ready_client();
  for (const char* node : {"m", "n", "small"}) {
    EXPECT_EQ(run(client, "block-dirty-bitmap-add",
                  "{\"node\": \"" + std::string(node) + "\", \"name\": \"b\"}"),
              done);
  }
  small_.view("other").node().bitmaps().mark({0, 1});
  const auto merge = [&](const std::string& node, const std::string& bitmaps) {
    return run(client, "block-dirty-bitmap-merge",
               "{\"node\": \"" + node + "\", \"target\": \"b\", \"bitmaps\": [" + bitmaps + "]}");
  };
  const auto dirty = [&] { return small_.view("disk").node().bitmaps().find("b")->dirty_bytes(); };
  const std::string other = "{\"node\": \"n\", \"name\": \"b\"}";

  EXPECT_EQ(merge("m", other + ", {\"node\": \"small\", \"name\": \"b\"}"),
            error("Bitmaps are of different sizes (destination size is 1048576, source size is "
                  "65536) and can't be merged"));
  EXPECT_EQ(merge("m", other + ", \"zz\""), error("Dirty bitmap 'zz' not found"));
  EXPECT_EQ(merge("m", other + ", {\"node\": \"zz\", \"name\": \"b\"}"),
            error("Node 'zz' not found"));
  EXPECT_EQ(merge("m", other + ", 3"),
            error("Invalid parameter type for 'bitmaps[1]', expected: BlockDirtyBitmapOrStr"));
  EXPECT_EQ(merge("m", "{\"node\": \"n\"}"), error("Parameter 'bitmaps[0].name' is missing"));
  EXPECT_EQ(merge("m", "{\"node\": \"n\", \"name\": \"b\", \"y\": 1}"),
            error("Parameter 'bitmaps[0].y' is unexpected"));
  EXPECT_EQ(merge("zz", "\"b\""), error("Node 'zz' not found"));
  EXPECT_EQ(dirty(), 0U);
  EXPECT_EQ(merge("m", ""), done);
  EXPECT_EQ(dirty(), 0U);
  EXPECT_EQ(merge("m", other), done);
  EXPECT_EQ(dirty(), 64 * KiB);
}

TEST_F(ControlTest, QuitsWhenTheClientHasTheReply) {
  sim::Line line;
  line.to_client_max = 100;
  sim::SimStream& client = connect(line);
  say(client, "{\"execute\": \"qmp_capabilities\"}{\"execute\": \"quit\", \"id\": 1}");
  settle();
  EXPECT_EQ(quits_, 0);
  EXPECT_THAT(hear(client), testing::Contains("{\"return\": {}, \"id\": 1}"));
  settle();
  EXPECT_EQ(quits_, 1);
}

TEST_F(ControlTest, TellsEventsToThoseWhoHaveAgreed) {
  sim::SimStream& agreed = ready_client();
  sim::SimStream& silent = connect();
  hear(silent);
  Json data;
  data.set("id", "disk");

  server_.emit("BLOCK_EXPORT_DELETED", std::move(data));

  const auto lines = hear(agreed);
  ASSERT_EQ(lines.size(), 1U);
  const auto event = parse_json(lines.front());
  ASSERT_TRUE(event);
  EXPECT_EQ(*event->find("event")->string(), "BLOCK_EXPORT_DELETED");
  EXPECT_EQ(to_text(*event->find("data")), "{\"id\": \"disk\"}");
  EXPECT_GT(*event->find("timestamp")->find("seconds")->integer(), 0);
  EXPECT_LT(*event->find("timestamp")->find("microseconds")->integer(), 1'000'000);
  EXPECT_THAT(hear(silent), IsEmpty());
}

TEST_F(ControlTest, LeavesAClientThatDoesNotReadItsEvents) {
  sim::Line line;
  line.to_client_max = 1000;
  ready_client(line);
  sim::SimStream& other = ready_client();
  for (int i = 0; i < 20; ++i) {
    Json data;
    data.set("id", std::string(64 * KiB, 'x'));
    server_.emit("BLOCK_EXPORT_DELETED", std::move(data));
    hear(other);
  }
  EXPECT_EQ(server_.sessions(), 1U);
  EXPECT_EQ(run(other, "quit"), done);
}

TEST_F(ControlTest, AClientThatReadsNothingHoldsUpNobody) {
  sim::Line line;
  line.to_client_max = 50;
  sim::SimStream& rude = connect(line);
  for (int i = 0; i < 100; ++i) say(rude, "{\"execute\": \"query-commands\"} ");
  settle();
  sim::SimStream& polite = ready_client();
  EXPECT_EQ(run(polite, "block-dirty-bitmap-add", "{\"node\": \"m\", \"name\": \"b\"}"), done);
}

TEST_F(ControlTest, AStopLeavesEverybody) {
  sim::SimStream& idle = ready_client();
  sim::Line line;
  line.to_client_max = 50;
  sim::SimStream& rude = connect(line);
  say(rude, "{\"execute\":");

  stop();

  EXPECT_EQ(server_.sessions(), 0U);
  std::array<std::byte, 1> byte{};
  EXPECT_FALSE(idle.read_now(byte));
  connect();
  EXPECT_EQ(server_.sessions(), 0U);
}

TEST_F(ControlTest, ACommandDuringAStopIsRefused) {
  sim::SimStream& client = ready_client();
  EXPECT_EQ(small_.close(), "");
  EXPECT_EQ(run(client, "query-named-block-nodes"), error("the server is stopping"));
}

TEST_F(ControlTest, TurnsAwayOneClientTooMany) {
  for (std::size_t i = 0; i < sessions_max; ++i) ready_client();
  sim::SimStream& late = connect();
  EXPECT_THAT(hear(late), IsEmpty());
  EXPECT_EQ(server_.sessions(), sessions_max);
  clients_.front()->close();
  settle();
  ready_client();
}

TEST_F(ControlTest, EndsWithAValueThatHasNoEnd) {
  sim::SimStream& client = ready_client();
  EXPECT_THAT(ask(client, std::string(100, '[')),
              ElementsAre(error("JSON parse error, nested deeper than 64")));
  EXPECT_EQ(server_.sessions(), 0U);
}

TEST_F(ControlTest, AnOwnClientCallsACommand) {
  sim::StreamPair pair = sim::stream_pair(scheduler(), {});
  server_.receive(std::move(pair.server));
  std::vector<std::string> events;
  const std::function<void(const Json&)> event = [&](const Json& message) {
    events.push_back(*message.find("event")->string());
  };
  const Json none{JsonObject()};

  const auto exports = small_.world.run(call(*pair.client, "query-block-exports", none, event));

  ASSERT_TRUE(exports) << exports.error().message;
  EXPECT_EQ(exports->array()->size(), 1U);
  sim::StreamPair again = sim::stream_pair(scheduler(), {});
  server_.receive(std::move(again.server));
  const auto refused = small_.world.run(call(*again.client, "nonsense", none, event));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "The command nonsense has not been found");
}

}  // namespace
}  // namespace app::control
