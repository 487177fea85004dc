// Rules P-1 to P-13: who may do what to a node.
#include "graph/permissions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "graph/transaction.h"
#include "tests/support/graph_fixture.h"

namespace {

using graph::Access;
using graph::child_access;
using graph::CommonOptions;
using graph::Permission;
using graph::Role;
using graph::ViewOptions;
using graph::Writable;
using test::code_of;
using test::message_of;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

using Rights = graph::Permissions;
constexpr Permission reading = Permission::consistent_read;
constexpr Permission writing = Permission::write;
constexpr Permission copying = Permission::write_unchanged;
constexpr Permission growing = Permission::resize;

class Permissions : public test::GraphTest {};

ViewOptions user(std::string name, Rights taken, Rights shared = Rights::all()) {
  ViewOptions options(std::move(name));
  options.access = Access{taken, shared};
  return options;
}

CommonOptions read_only() {
  CommonOptions common;
  common.read_only = true;
  return common;
}

TEST_F(Permissions, AreNamedInOrder) {
  EXPECT_EQ(Rights::all().text(), "consistent read, write, write unchanged, resize");
  EXPECT_EQ(Rights::none().text(), "");
}

TEST_F(Permissions, HaveTheBitNumbersThatImageLocksUse) {
  EXPECT_EQ(Rights(reading).bits(), 1U);
  EXPECT_EQ(Rights(writing).bits(), 2U);
  EXPECT_EQ(Rights(copying).bits(), 4U);
  EXPECT_EQ(Rights(growing).bits(), 8U);
  EXPECT_EQ(Rights::from_bits(0xff), Rights::all());
}

TEST_F(Permissions, P1_WhatOneUserTakesTheOthersMustShareInBothDirections) {
  test::Disk& disk = this->disk("disk", 512);
  view(disk, user("job 'mirror'", reading, reading | copying | growing));

  const auto taker = try_view(disk, user("export 'w'", reading | writing));
  const auto hermit = try_view(disk, user("export 'h'", copying, Rights::none()));

  EXPECT_EQ(code_of(taker), Errc::busy);
  EXPECT_EQ(message_of(taker),
            "Permission conflict on node 'disk': permissions 'write' are both required by export "
            "'w' (uses node 'disk' as 'root' child) and unshared by job 'mirror' (uses node 'disk' "
            "as 'root' child).");
  EXPECT_EQ(code_of(hermit), Errc::busy);
  EXPECT_THAT(message_of(hermit),
              HasSubstr("permissions 'consistent read' are both required by job 'mirror'"));
}

TEST_F(Permissions, P1_ARefusedUserLeavesTheGraphUntouched) {
  test::Disk& disk = this->disk("disk", 512);
  test::Pass& filter = this->filter("filter", disk);
  view(disk, user("job 'j'", reading, Rights::all().without(writing)));
  const Access disk_before = disk.cumulative_access();
  disk.rights.log.clear();

  const auto refused = try_view(filter, user("export 'w'", writing));

  EXPECT_EQ(code_of(refused), Errc::busy);
  EXPECT_EQ(disk.cumulative_access(), disk_before);
  EXPECT_EQ(filter.cumulative_access(), (Access{Rights::none(), Rights::all()}));
  EXPECT_THAT(filter.parents(), IsEmpty());
  EXPECT_THAT(disk.rights.log, IsEmpty());
}

TEST_F(Permissions, P1_TheWordsNameNodeRightsAndBothUsersAsQemuDoes) {
  test::Disk& f = this->disk("f", 512);
  format("q", f, 512);

  const auto refused = try_view(f, user("export 'e'", reading | writing));

  EXPECT_THAT(message_of(refused),
              HasSubstr("Permission conflict on node 'f': permissions 'write'"));
  EXPECT_THAT(message_of(refused),
              HasSubstr("and unshared by node 'q' (uses node 'f' as 'file' child)."));
}

TEST_F(Permissions, P2_TheRightsOfANodeAreWhatAnyParentTakesAndAllShare) {
  test::Disk& disk = this->disk("disk", 512);
  view(disk, user("a", reading, Rights::all().without(growing)));
  view(disk, user("b", writing, Rights::all().without(copying)));

  EXPECT_EQ(disk.cumulative_access().taken, reading | writing);
  EXPECT_EQ(disk.cumulative_access().shared, reading | writing);
  EXPECT_EQ(disk.rights.log.at(disk.rights.log.size() - 2), "prepare consistent read, write");
}

TEST_F(Permissions, P3_AFilterPassesRightsThroughAsTheyAre) {
  test::Disk& disk = this->disk("disk", 512);
  test::Pass& filter = this->filter("filter", disk);
  const Access own{reading | copying, reading | growing};

  view(filter, user("a", own.taken, own.shared));

  EXPECT_EQ(filter.file().access(), own);
}

TEST_F(Permissions, P3_AFilterWithoutUsersTakesNothing) {
  test::Disk& disk = this->disk("disk", 512);
  test::Pass& filter = this->filter("filter", disk);
  EXPECT_EQ(filter.file().access(), (Access{Rights::none(), Rights::all()}));

  test::View& view = writer(filter);
  EXPECT_TRUE(filter.file().may(writing));
  EXPECT_OK(detach(view));

  EXPECT_EQ(filter.file().access(), (Access{Rights::none(), Rights::all()}));
}

TEST_F(Permissions,
       P4_ABackingFileIsOnlyReadAndWritersOfItAreBorneOnlyWhereTheOverlaysUsersBearThem) {
  const Rights always = reading | copying;
  const Access lenient{Rights::all(), Rights::all()};
  const Access strict{writing, reading | copying | growing};

  EXPECT_EQ(child_access(Role::backing, lenient, Writable::yes), (Access{reading, Rights::all()}));
  EXPECT_EQ(child_access(Role::backing, strict, Writable::yes), (Access{Rights::none(), always}));
}

TEST_F(Permissions, P5_MetadataIsReadAndWhereTheNodeIsWritableWrittenAndGrownAndNeverShared) {
  const Access idle{Rights::none(), Rights::all()};
  for (const Role role : {Role::metadata, Role::image}) {
    EXPECT_EQ(child_access(role, idle, Writable::yes),
              (Access{reading | writing | growing, reading | copying}));
    EXPECT_EQ(child_access(role, idle, Writable::no), (Access{reading, reading | copying}));
  }
}

TEST_F(Permissions, P6_DataNeverSharesResizeAndItsWritersMayGrowIt) {
  const Access reader{reading, Rights::all()};
  const Access writer{writing, Rights::all()};
  const Access copier{copying, Rights::all()};
  const Rights shared = Rights::all().without(growing);

  EXPECT_EQ(child_access(Role::data, reader, Writable::yes), (Access{reading, shared}));
  EXPECT_EQ(child_access(Role::data, writer, Writable::yes), (Access{writing | growing, shared}));
  EXPECT_EQ(child_access(Role::data, copier, Writable::yes), (Access{writing | growing, shared}));
}

// Of a file that holds both, what holds for data holds, too: a writer who came by auto-read-only
// grows it.
TEST_F(Permissions, P6_TheDataOfAnImageGrowsWithItsWriter) {
  const Access writer{writing, Rights::all()};
  EXPECT_TRUE(child_access(Role::image, writer, Writable::no).taken.has(growing));
}

TEST_F(Permissions, P6_AnExternalDataFileIsDataAndTheFileMetadataOnly) {
  test::Disk& meta = this->disk("meta", 512);
  test::Disk& data = this->disk("data", 512);
  ASSERT_OK(try_table("q", meta, Role::metadata, &data, Role::data, 512, {}));
  graph::Node& q = *graph.find("q");
  EXPECT_EQ(q.child("data-file")->access().taken, Rights::none());

  writer(q);

  EXPECT_EQ(q.child("file")->access().taken, reading | writing | growing);
  EXPECT_EQ(q.child("data-file")->access().taken, reading | writing | growing);
  EXPECT_TRUE(q.child("data-file")->access().shared.has(writing));
}

TEST_F(Permissions, P6_DoesNotBindRawWhichPassesOnTheRightsOfItsUsers) {
  const Access export_user{reading | writing, Rights::all()};
  EXPECT_EQ(child_access(Role::window, export_user, Writable::yes), export_user);
}

TEST_F(Permissions, P8_AWriterOfAReadOnlyNodeIsRefused) {
  test::Disk& disk = this->disk("disk", 512, read_only());

  const auto as_writer = try_view(disk, user("w", writing));
  const auto as_copier = try_view(disk, user("c", copying));

  EXPECT_EQ(code_of(as_writer), Errc::read_only);
  EXPECT_EQ(message_of(as_writer), "disk: Block node is read-only");
  EXPECT_EQ(code_of(as_copier), Errc::read_only);
  EXPECT_OK(try_view(disk, user("r", reading)));
}

TEST_F(Permissions, P8_AReadOnlyNodeBelowAFilterIsFoundToo) {
  test::Disk& disk = this->disk("disk", 512, read_only());
  test::Pass& filter = this->filter("filter", disk);

  const auto as_writer = try_view(filter, user("w", writing));

  EXPECT_EQ(message_of(as_writer), "disk: Block node is read-only");
  EXPECT_THAT(filter.parents(), IsEmpty());
}

TEST_F(Permissions, P8_AReadOnlyNodeStaysSoThoughItIsAutoReadOnlyToo) {
  CommonOptions common = read_only();
  common.auto_read_only = true;
  test::Disk& disk = this->disk("disk", 512, common);

  EXPECT_EQ(code_of(try_view(disk, user("w", writing))), Errc::read_only);
}

TEST_F(Permissions, P8_AnAutoReadOnlyNodeIsToldOfItsFirstWriterAndOfTheLastOneLeaving) {
  CommonOptions common;
  common.auto_read_only = true;
  test::Disk& disk = this->disk("disk", 512, common);
  reader(disk);
  disk.rights.log.clear();

  test::View& view = writer(disk);
  EXPECT_THAT(disk.rights.log, ElementsAre("prepare consistent read, write", "commit"));
  disk.rights.log.clear();
  EXPECT_OK(detach(view));

  EXPECT_THAT(disk.rights.log, ElementsAre("lose write", "prepare consistent read", "commit"));
}

TEST_F(Permissions, P9_AnUnalignedEndCanBeWrittenWithoutGrowingWhereTheMediumAllowsIt) {
  test::Disk& buffered = this->disk("buffered", 1000);
  buffered.wants.request_alignment = 512;
  test::Disk& direct = this->disk("direct", 1000);
  direct.wants.request_alignment = 512;
  direct.wants.unaligned_tail_writes = false;
  refresh();

  const auto refused = try_view(direct, user("w", reading | writing));
  test::View& view = writer(buffered);

  EXPECT_EQ(code_of(refused), Errc::invalid_argument);
  EXPECT_THAT(message_of(refused), HasSubstr("Image size is not a multiple of request alignment"));
  EXPECT_OK(try_view(direct, user("g", reading | writing | growing)));
  EXPECT_OK(write(view, 999, "x"));
  EXPECT_EQ(buffered.content.size(), 1000U);
  EXPECT_EQ(buffered.content.substr(998), ".x");
}

TEST_F(Permissions, P10_AWritePastTheEndThroughAnEdgeWithoutResizeIsRefusedAndCounted) {
  test::Disk& disk = this->disk("disk", 512);
  test::Pass& filter = this->filter("filter", disk);
  writer(filter);
  const std::string data(2, 'x');
  const ConstBuffers two(bytes_of(std::string_view(data)));

  const auto straddling = run(filter.file().write(511, two));
  const auto past = run(filter.file().write_zeroes({1024, 8}));
  const auto wrapping = run(filter.file().write(~std::uint64_t{0}, two));

  EXPECT_EQ(code_of(straddling), Errc::out_of_range);
  EXPECT_EQ(code_of(past), Errc::out_of_range);
  EXPECT_EQ(code_of(wrapping), Errc::out_of_range);
  EXPECT_EQ(disk.refused_growth, 3U);
  EXPECT_THAT(disk.script.calls, IsEmpty());
}

TEST_F(Permissions, P10_WhatAnEdgeDidNotTakeItCantDo) {
  test::Disk& disk = this->disk("disk", 512);
  test::Pass& filter = this->filter("filter", disk);
  view(filter, user("writer", writing));
  std::string data(8, 'x');
  const Buffers eight(std::as_writable_bytes(std::span(data)));

  EXPECT_EQ(code_of(run(filter.file().read(0, eight))), Errc::permission_denied);
  EXPECT_EQ(code_of(run(filter.file().resize(0))), Errc::permission_denied);
  EXPECT_EQ(code_of(run(filter.file().map({0, 8}))), Errc::permission_denied);
  EXPECT_THAT(disk.script.calls, IsEmpty());
}

TEST_F(Permissions, P11_RightsReachTheNodeThatMirrorsThemInTwoPhases) {
  test::Disk& disk = this->disk("disk", 512);
  filter("filter", disk);
  disk.rights.log.clear();

  writer(*graph.find("filter"));

  EXPECT_THAT(disk.rights.log, ElementsAre("prepare consistent read, write", "commit"));
}

TEST_F(Permissions, P11_ANodeThatCantGetARightRefusesTheUser) {
  test::Disk& disk = this->disk("disk", 512);
  disk.rights.refuses = Errc::permission_denied;

  const auto refused = try_view(disk, user("w", writing));

  EXPECT_EQ(code_of(refused), Errc::permission_denied);
  EXPECT_THAT(disk.parents(), IsEmpty());
}

TEST_F(Permissions, P12_AnExportTakesOnlyWhatItUsesAndPutsUpWithGrowth) {
  test::Disk& disk = this->disk("disk", 512);
  reader(disk);
  EXPECT_EQ(disk.cumulative_access(), (Access{reading, Rights::all()}));
  writer(disk);
  EXPECT_EQ(disk.cumulative_access(), (Access{reading | writing, Rights::all()}));

  EXPECT_OK(try_view(disk, user("job", growing)));
}

TEST_F(Permissions, P13_AllNodesPrepareBeforeOneCommits) {
  test::Disk& left = this->disk("left", 512);
  test::Disk& right = this->disk("right", 512);
  test::Pass& filter = this->filter("filter", left);
  test::View& view = reader(filter);
  left.rights.log.clear();
  filter.rights.log.clear();

  right.rights.log.clear();
  right.rights.refuses = Errc::busy;  // the last to prepare
  graph::Transaction change(graph);
  change.refresh(right);
  change.refresh(filter);
  const auto done = run(change.commit());

  EXPECT_EQ(code_of(done), Errc::busy);
  EXPECT_THAT(filter.rights.log, ElementsAre("prepare consistent read", "abort"));
  EXPECT_THAT(left.rights.log, ElementsAre("prepare consistent read", "abort"));
  EXPECT_THAT(right.rights.log, ElementsAre("prepare "));
  EXPECT_OK(read(view, {0, 1}));
}

TEST_F(Permissions, P13_WhatANodeDoesBeforeItLosesARightIsDoneDrainedAndBeforeAnybodyPrepares) {
  test::Disk& disk = this->disk("disk", 512);
  test::View& bystander = reader(disk);
  test::View& leaving = grower(disk);
  disk.rights.log.clear();
  disk.script.hold("lose");

  const auto index = views.size() - 1;
  ASSERT_EQ(views[index].get(), &leaving);
  auto held = std::move(views[index]);
  views.pop_back();
  const auto detached = start(graph.detach(std::move(held)));
  settle();

  EXPECT_THAT(disk.rights.log, ElementsAre("lose write, resize"));
  EXPECT_TRUE(bystander.drained());
  EXPECT_FALSE(detached->done());

  disk.script.release();
  settle();
  EXPECT_TRUE(detached->succeeded());
  EXPECT_THAT(disk.rights.log,
              ElementsAre("lose write, resize", "prepare consistent read", "commit"));
  EXPECT_FALSE(bystander.drained());
}

TEST_F(Permissions, P13_ANodeToBeClosedTellsItsChildrenBeforeTheyLoseTheirRights) {
  test::Disk& disk = this->disk("disk", 512);
  format("format", disk, 512);
  disk.rights.log.clear();

  EXPECT_OK(run(graph.remove("format")));

  EXPECT_THAT(disk.rights.log,
              ElementsAre("lose consistent read, write, resize", "prepare ", "commit"));
}

TEST_F(Permissions, P13_ANodeThatCantGiveUpARightStopsTheChange) {
  test::Disk& disk = this->disk("disk", 512);
  test::Pass& over = this->filter("over", disk);
  test::View& view = grower(over);
  test::Disk& other = this->disk("other", 512);
  disk.script.fail("lose", Errc::no_space);

  graph::Transaction change(graph);
  change.replace_child(over.file(), shared(other));
  const auto done = run(change.commit());

  EXPECT_EQ(code_of(done), Errc::no_space);
  EXPECT_EQ(&over.file().node(), &disk);
  EXPECT_OK(write(view, 0, "x"));
  EXPECT_EQ(disk.content[0], 'x');
}

// The limits that a trial of the change left behind are no limits for what runs in between.
TEST_F(Permissions, P13_WhileRightsAreGivenUpTheGraphIsTheOldOne) {
  test::Disk& disk = this->disk("disk", 1024);
  test::Disk& other = this->disk("other", 1024);
  other.wants.request_alignment = 512;
  refresh();
  test::Pass& over = this->filter("over", disk);
  grower(over);
  disk.script.hold("lose");

  graph::Transaction change(graph);
  change.replace_child(over.file(), shared(other));
  const auto done = start(change.commit());
  settle();
  EXPECT_EQ(&over.file().node(), &disk);
  EXPECT_EQ(over.limits().request_alignment, 1U);

  disk.script.release();
  settle();
  EXPECT_TRUE(done->succeeded());
  EXPECT_EQ(over.limits().request_alignment, 512U);
}

}  // namespace
