#include "graph/filter/fault_rules.h"

#include <gtest/gtest.h>

namespace {

using graph::DebugEvent;
using graph::FaultRules;
using graph::InjectRule;
using graph::IoType;
using graph::StateRule;

InjectRule inject(DebugEvent event, int error_number) {
  InjectRule rule;
  rule.event = event;
  rule.fault.error_number = error_number;
  return rule;
}

StateRule change(DebugEvent event, int state, int new_state) {
  StateRule rule;
  rule.event = event;
  rule.state = state;
  rule.new_state = new_state;
  return rule;
}

// The errno that a request of 512 bytes at 0 gets; 0: none.
int strike(FaultRules& rules, IoType type = IoType::write, Range range = {0, 512}) {
  const auto fault = rules.strike(type, range);
  return fault ? fault->error_number : 0;
}

TEST(FaultRules, AreArmedByTheirEventAndHitEveryRequestFromThenOn) {
  FaultRules rules;
  rules.add(inject(DebugEvent::write_aio, 5));

  EXPECT_EQ(strike(rules), 0);
  rules.meet(DebugEvent::read_aio);
  EXPECT_EQ(strike(rules), 0);
  rules.meet(DebugEvent::write_aio);

  EXPECT_EQ(strike(rules), 5);
  EXPECT_EQ(strike(rules, IoType::read), 5);
}

TEST(FaultRules, ForOnceHitOneRequestAndAreGone) {
  FaultRules rules;
  InjectRule rule = inject(DebugEvent::write_aio, 5);
  rule.once = true;
  rules.add(rule);

  rules.meet(DebugEvent::write_aio);
  EXPECT_EQ(strike(rules), 5);
  EXPECT_EQ(strike(rules), 0);
  rules.meet(DebugEvent::write_aio);

  EXPECT_EQ(strike(rules), 0);
  EXPECT_FALSE(rules.armed());
}

TEST(FaultRules, StayArmedUntilAnotherEventArmsOthers) {
  FaultRules rules;
  rules.add(inject(DebugEvent::l2_load, 5));
  rules.add(inject(DebugEvent::l2_update, 28));

  rules.meet(DebugEvent::l2_load);
  rules.meet(DebugEvent::cow_read);  // arms none
  EXPECT_EQ(strike(rules), 5);
  rules.meet(DebugEvent::l2_update);

  EXPECT_EQ(strike(rules), 28);
}

TEST(FaultRules, TheFirstOneThatFitsDecides) {
  FaultRules rules;
  InjectRule first = inject(DebugEvent::pwritev, 5);
  first.types = IoType::flush;
  rules.add(first);
  rules.add(inject(DebugEvent::pwritev, 28));
  rules.add(inject(DebugEvent::pwritev, 22));

  rules.meet(DebugEvent::pwritev);

  EXPECT_EQ(strike(rules, IoType::write), 28);
  EXPECT_EQ(strike(rules, IoType::flush), 5);
}

TEST(FaultRules, AnErrorOfZeroShieldsFromThoseAfterIt) {
  FaultRules rules;
  rules.add(inject(DebugEvent::pwritev, 0));
  rules.add(inject(DebugEvent::pwritev, 28));

  rules.meet(DebugEvent::pwritev);

  EXPECT_EQ(strike(rules), 0);
}

TEST(FaultRules, ASectorIsHitByWhatTouchesIt) {
  FaultRules rules;
  InjectRule rule = inject(DebugEvent::none, 5);
  rule.sector = 2;
  rules.add(rule);
  rules.meet(DebugEvent::none);

  EXPECT_EQ(strike(rules, IoType::write, {0, 1024}), 0);
  EXPECT_EQ(strike(rules, IoType::write, {0, 1025}), 5);
  EXPECT_EQ(strike(rules, IoType::write, {1024, 1}), 5);
  EXPECT_EQ(strike(rules, IoType::write, {1025, 512}), 0);
  EXPECT_EQ(strike(rules, IoType::flush, {}), 0);
}

TEST(FaultRules, BlockStatusIsHitOnlyWhereItIsNamed) {
  FaultRules usual;
  usual.add(inject(DebugEvent::none, 5));
  usual.meet(DebugEvent::none);
  FaultRules named;
  InjectRule rule = inject(DebugEvent::none, 5);
  rule.types = IoType::block_status;
  named.add(rule);
  named.meet(DebugEvent::none);

  EXPECT_EQ(strike(usual, IoType::block_status), 0);
  EXPECT_EQ(strike(usual, IoType::discard), 5);
  EXPECT_EQ(strike(named, IoType::block_status), 5);
  EXPECT_EQ(strike(named, IoType::discard), 0);
}

TEST(FaultRules, LookAtTheStateAsItWasBeforeTheEvent) {
  FaultRules rules;
  InjectRule second = inject(DebugEvent::write_aio, 28);
  second.state = 2;
  rules.add(change(DebugEvent::write_aio, 1, 2));
  rules.add(second);

  rules.meet(DebugEvent::write_aio);
  EXPECT_EQ(strike(rules), 0);
  EXPECT_EQ(rules.state(), 2);
  rules.meet(DebugEvent::write_aio);

  EXPECT_EQ(strike(rules), 28);
}

TEST(FaultRules, OfChangesOfTheStateTheFirstThatFitsDecides) {
  FaultRules rules;
  rules.add(change(DebugEvent::pwritev, 7, 8));
  rules.add(change(DebugEvent::pwritev, graph::any_state, 3));
  rules.add(change(DebugEvent::pwritev, 1, 4));

  rules.meet(DebugEvent::pwritev);

  EXPECT_EQ(rules.state(), 3);
}

}  // namespace
