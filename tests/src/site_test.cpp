#include "src/site.h"

#include <gtest/gtest.h>

#include "tests/src/small_site.h"

namespace app {
namespace {

constexpr std::array witness_options{
    OptionSpec{"flush", Kind::choice, "works", "what becomes of a flush", "works|fails"},
    OptionSpec{"open", Kind::choice, "works", "what becomes of opening it", "works|fails"},
};

class Witness final : public graph::Protocol {
 public:
  explicit Witness(bool flush_works) : flush_works_(flush_works) {}
  std::uint64_t own_size() const override { return 1 * MiB; }
  graph::Growth growth() const override { return graph::Growth::never; }
  Task<> read(std::uint64_t, const Buffers& out) override {
    fill_zero(out);
    return succeeded();
  }
  Task<> write(std::uint64_t, const ConstBuffers&, graph::WriteFlags) override {
    return succeeded();
  }
  Task<> flush_to_disk() override {
    home().log.info(name() + ": flush");
    if (flush_works_) return succeeded();
    return failed(fault(Errc::io_error, 0, "the medium is gone"));
  }
  Task<> close() override {
    home().log.info(name() + ": close");
    return succeeded();
  }

 private:
  const bool flush_works_;
};

Task<std::unique_ptr<graph::Node>> open_witness(graph::OpenContext& context) {
  context.home().log.info(context.node_name() + ": open");
  if (context.options().text("open") == "fails") {
    co_return context.blame("open", Error(Errc::io_error, context.node_name() + ": can't open it"));
  }
  co_return std::make_unique<Witness>(context.options().text("flush") == "works");
}

TEST(Site, FlushesWhatIsWritableBeforeItCloses) {
  SmallSite small("[nodes.w]\ndriver = 'witness'\n[exports.e]\nnode = 'w'\nwritable = true\n");
  ASSERT_EQ(small.open(), "");
  {
    // a byte that no client has flushed
    const std::array<std::byte, 1> byte{};
    const ConstBuffers data{std::span(byte)};
    ASSERT_TRUE(small.world.run(small.view("e").write(0, data)));
  }
  small.world.log.lines.clear();

  EXPECT_EQ(small.close(), "");

  ASSERT_GE(small.world.log.lines.size(), 2u);
  EXPECT_EQ(small.world.log.lines.front(), "w: flush");
  EXPECT_EQ(small.world.log.lines.back(), "w: close");
}

TEST(Site, SaysWhichExportLostItsLastFlush) {
  SmallSite small(
      "[nodes.w]\ndriver = 'witness'\nflush = 'fails'\n[nodes.v]\ndriver = 'witness'\n"
      "[exports.bad]\nnode = 'w'\nwritable = true\n[exports.good]\nnode = 'v'\nwritable = true\n");
  ASSERT_EQ(small.open(), "");
  const std::array<std::byte, 1> byte{};
  const ConstBuffers data{std::span(byte)};
  ASSERT_TRUE(small.world.run(small.view("bad").write(0, data)));

  const std::string said = small.close();

  EXPECT_EQ(said, "export 'bad': the last flush failed, data may be lost: w: the medium is gone");
  EXPECT_TRUE(small.was_logged(said));
  EXPECT_TRUE(small.was_logged("w: close"));
  EXPECT_TRUE(small.was_logged("v: close"));
}

TEST(Site, ClosesWhatItHasOpenedWhenTheRestFails) {
  SmallSite small("[nodes.a]\ndriver = 'witness'\n[nodes.b]\ndriver = 'witness'\nopen = 'fails'\n");

  const std::string said = small.open();

  EXPECT_EQ(said, "a.toml:5:1: b: can't open it");
  EXPECT_TRUE(small.was_logged("a: close"));
  EXPECT_TRUE(small.site.cells().front()->graph().nodes().empty());
}

TEST(Site, GivesARefusedExportItsPlaceInTheFile) {
  const std::string nodes = "[nodes.w]\ndriver = 'witness'\nread-only = true\n";
  SmallSite conflict(nodes + "[exports.e]\nnode = 'w'\nwritable = true\n");
  SmallSite window(nodes + "[exports.e]\nnode = 'w'\noffset = '1M'\nsize = 1\n");
  SmallSite offset(nodes + "[exports.e]\nnode = 'w'\noffset = '2M'\n");

  const std::string said = conflict.open();

  EXPECT_TRUE(said.starts_with("a.toml:4:1: ")) << said;
  EXPECT_EQ(window.open(),
            "a.toml:7:1: export 'e': 1 bytes at 1048576 leave node 'w' of 1048576 bytes");
  EXPECT_EQ(offset.open(),
            "a.toml:6:1: export 'e': 0 bytes at 2097152 leave node 'w' of 1048576 bytes");
}

TEST(Site, ServesAWindowOfANode) {
  SmallSite small(
      "[nodes.w]\ndriver = 'witness'\n[exports.rest]\nnode = 'w'\noffset = '768K'\n"
      "[exports.part]\nnode = 'w'\nsize = '4K'\n");
  ASSERT_EQ(small.open(), "");

  EXPECT_EQ(small.view("rest").size(), 256 * KiB);
  EXPECT_EQ(small.view("part").size(), 4 * KiB);
  EXPECT_EQ(small.close(), "");
}

}  // namespace

extern const graph::Driver witness_driver{"witness", "tells what happens to it", witness_options,
                                          open_witness};

}  // namespace app
