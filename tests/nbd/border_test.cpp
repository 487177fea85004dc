// border_test.cpp - the case that gantry exists for, as a client sees it: one node, a guest that
// may not pass the end of its disk, and an owner that moves it.
#include <gtest/gtest.h>

#include "tests/support/nbd_fixture.h"

namespace {

using test::NbdHost;
using test::WireClient;
using testing::ElementsAre;
namespace err = test::err;

TEST(Border, AGuestGetsItsErrorsWhileTheOwnerOfTheSameNodeGrowsIt) {
  NbdHost host;
  const std::uint64_t size = NbdHost::small_size;
  WireClient& guest = host.attached("");
  graph::ViewOptions options("the owner");
  options.policy = graph::RangePolicy::growable;
  options.access.taken =
      graph::Permission::consistent_read | graph::Permission::write | graph::Permission::resize;
  auto owner = host.world.run(host.graph.attach(host.graph.find("default"), options));
  ASSERT_TRUE(owner) << owner.error().message;

  const std::string grown = "grown";
  const ConstBuffers data(bytes_of(grown));
  EXPECT_EQ(guest.writes(size, "x").error, err::enospc);
  EXPECT_TRUE(host.world.run((*owner)->write(size, data)));
  EXPECT_EQ(guest.writes(size, "x").error, err::enospc);
  EXPECT_EQ(guest.writes(size - 1, "xy").error, err::enospc);
  EXPECT_EQ(guest.reads(size, 1).error, err::einval);

  EXPECT_THAT(host.probe("default").calls, ElementsAre("write 1048576+5"));
  EXPECT_EQ((*owner)->size(), size + grown.size());
  EXPECT_EQ(host.server.find("")->view().size(), size);
  EXPECT_EQ(host.get("default", {size, grown.size()}), grown);
  EXPECT_TRUE(host.world.run(host.graph.detach(*std::move(owner))));
}

}  // namespace
