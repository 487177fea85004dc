#include "graph/filter/fault_config.h"

#include <gtest/gtest.h>

namespace {

using graph::DebugEvent;
using graph::FaultRules;
using graph::IoType;

std::string complaint(std::string_view text) {
  FaultRules rules;
  const Result<> read = add_fault_rules_of_file(rules, text, "f.cfg");
  return read ? "" : read.error().message;
}

TEST(FaultFile, IsWhatQemuReads) {
  FaultRules rules;
  const Result<> read = add_fault_rules_of_file(rules,
                                                "# a comment\n"
                                                "[set-state]\n"
                                                "event = \"l2_load\"\n"
                                                "state = \"1\"\n"
                                                "new_state = \"2\"\n"
                                                "\n"
                                                "[inject-error \"second\"]\r\n"
                                                "  event = \"write_aio\"\r\n"
                                                "\tstate=\"2\"\n"
                                                "iotype = \"write\"\n"
                                                "errno = \"28\"\n"
                                                "sector = \"3\"\n"
                                                "once = \"on\"\n"
                                                "immediately = \"off\"",
                                                "f.cfg");
  ASSERT_TRUE(read) << read.error().message;

  rules.meet(DebugEvent::write_aio);
  EXPECT_FALSE(rules.armed());
  rules.meet(DebugEvent::l2_load);
  rules.meet(DebugEvent::write_aio);
  EXPECT_FALSE(rules.strike(IoType::read, {1536, 1}));
  EXPECT_FALSE(rules.strike(IoType::write, {0, 1536}));
  const auto fault = rules.strike(IoType::write, {1536, 1});

  ASSERT_TRUE(fault);
  EXPECT_EQ(fault->error_number, 28);
  EXPECT_EQ(fault->when, graph::Promptness::later);
  EXPECT_FALSE(rules.strike(IoType::write, {1536, 1}));
}

TEST(FaultFile, SaysWhereItIsWrong) {
  EXPECT_EQ(complaint("event = \"pwritev\"\n"), "f.cfg:1:1: a key before the first group");
  EXPECT_EQ(complaint("[inject-error"), "f.cfg:1:1: a group ends with ']'");
  EXPECT_EQ(complaint("\n [inject]\n"),
            "f.cfg:2:2: there is no group 'inject', only inject-error and set-state");
  EXPECT_EQ(complaint("[set-state]\nevent \"x\"\n"), "f.cfg:2:1: expected key = \"value\"");
  EXPECT_EQ(complaint("[set-state]\nevent = x\n"), "f.cfg:2:1: expected key = \"value\"");
  EXPECT_EQ(complaint("[set-state]\nevent = \"x\" y\n"), "f.cfg:2:1: expected key = \"value\"");
  EXPECT_EQ(complaint("[inject-error]\nevnt = \"pwritev\"\n"),
            "f.cfg:2:1: unknown key 'evnt', did you mean 'event'?");
  EXPECT_EQ(complaint("[inject-error]\nevent = \"pwrite\"\n"),
            "f.cfg:2:1: 'event': there is no event 'pwrite', did you mean 'pwritev'?");
  EXPECT_EQ(complaint("[inject-error]\nerrno = \"5\"\n"), "f.cfg:1:1: the key 'event' is missing");
  EXPECT_EQ(complaint("[inject-error]\nevent = \"pwritev\"\nerrno = \"EIO\"\n"),
            "f.cfg:3:1: 'errno': expected an integer, not a string");
  EXPECT_EQ(complaint("[inject-error]\nevent = \"pwritev\"\nonce = \"maybe\"\n"),
            "f.cfg:3:1: 'once': expected true or false, not a string");
  EXPECT_EQ(complaint("[set-state]\nevent = \"pwritev\"\n"),
            "f.cfg:1:1: the key 'new_state' is missing");
}

TEST(FaultFile, RefusesNumbersThatNothingHas) {
  const std::string rule = "[inject-error]\nevent = \"pwritev\"\n";
  EXPECT_EQ(complaint(rule + "errno = \"-5\"\n"), "f.cfg:3:1: 'errno': -5 is not in 0 to 4095");
  EXPECT_EQ(complaint(rule + "state = \"-1\"\n"),
            "f.cfg:3:1: 'state': -1 is not in 0 to 2147483647");
  EXPECT_EQ(complaint(rule + "sector = \"-2\"\n"),
            "f.cfg:3:1: 'sector': -2 is not in -1 to 18014398507384832");
  EXPECT_EQ(complaint(rule + "sector = \"-1\"\n"), "");
}

}  // namespace
