#include "src/probe.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace app {
namespace {

using namespace std::string_view_literals;

// A file of `size` zeroes with `text` at `offset`, as the probe gets to see it.
std::string_view probed(std::size_t size, std::size_t offset, std::string_view text) {
  std::vector<std::byte> file(size);
  for (std::size_t i = 0; i < text.size(); ++i)
    file.at(offset + i) = static_cast<std::byte>(text[i]);
  const std::span all(file);
  return probe_format(all.first(std::min(size, probe_head_size)),
                      all.last(std::min(size, probe_tail_size)));
}

TEST(Probe, KnowsFormatsByTheirFirstBytes) {
  EXPECT_EQ(probed(8192, 0, "QFI\xfb\0\0\0\3"sv), "qcow2");
  EXPECT_EQ(probed(8192, 0, "QFI\xfb\0\0\0\2"sv), "qcow2");
  EXPECT_EQ(probed(8192, 0, "QFI\xfb\0\0\0\1"sv), "qcow");
  EXPECT_EQ(probed(8192, 0, "QED\0"sv), "qed");
  EXPECT_EQ(probed(8192, 0, "KDMV"), "vmdk");
  EXPECT_EQ(probed(8192, 0, "COWD"), "vmdk");
  EXPECT_EQ(probed(8192, 0, "# Disk DescriptorFile\nversion=1\n"), "vmdk");
  EXPECT_EQ(probed(8192, 0x40, "\x7f\x10\xda\xbe"sv), "vdi");
  EXPECT_EQ(probed(8192, 0, "vhdxfile"), "vhdx");
  EXPECT_EQ(probed(8192, 0, "conectix"), "vpc");
  EXPECT_EQ(probed(8192, 0, "LUKS\xba\xbe\0\1"sv), "luks");
  EXPECT_EQ(probed(8192, 0, "WithoutFreeSpace"), "parallels");
  EXPECT_EQ(probed(8192, 0, "WithouFreSpacExt"), "parallels");
  EXPECT_EQ(probed(8192, 0, "Bochs Virtual HD Image\0"sv), "bochs");
  EXPECT_EQ(probed(8192, 0, "#!/bin/sh\n#V2.0 Format\nmodprobe cloop"), "cloop");
}

TEST(Probe, KnowsFormatsByTheirLastBytes) {
  EXPECT_EQ(probed(8192, 8192 - 512, "conectix"), "vpc");
  EXPECT_EQ(probed(8192, 8192 - 511, "conectix"), "vpc");
  EXPECT_EQ(probed(8192, 8192 - 512, "koly"), "dmg");
}

TEST(Probe, TakesTheRestForRaw) {
  EXPECT_EQ(probed(8192, 0, ""), "raw");
  EXPECT_EQ(probed(8192, 1, "QFI\xfb\0\0\0\3"sv), "raw");
  EXPECT_EQ(probed(8192, 4096, "conectix"), "raw");
  EXPECT_EQ(probed(8192, 0, "#!/bin/sh\necho\n"), "raw");
}

TEST(Probe, TakesFilesOfAnyLength) {
  EXPECT_EQ(probed(0, 0, ""), "raw");
  EXPECT_EQ(probed(3, 0, "QFI"), "raw");
  EXPECT_EQ(probed(4, 0, "KDMV"), "vmdk");
  EXPECT_EQ(probed(0x43, 0x40, "\x7f\x10\xda"sv), "raw");
  EXPECT_EQ(probed(511, 0, "koly"), "raw");
}

}  // namespace
}  // namespace app
