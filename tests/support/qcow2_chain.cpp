#include "tests/support/qcow2_chain.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace test {
namespace {

OptionValue nested(Options options) {
  OptionValue value;
  value.data = std::make_shared<Options>(std::move(options));
  return value;
}

Options file_node(const std::string& path) {
  Options file;
  file.set("driver", option_text("file"));
  file.set("filename", option_text(path));
  return file;
}

Options layer(const char* driver, const std::string& path) {
  Options node;
  node.set("driver", option_text(driver));
  node.set("file", nested(file_node(path)));
  return node;
}

Options middle_backing() { return layer("raw", "base"); }

}  // namespace

std::string bytes_from(std::uint64_t seed, std::size_t length) {
  std::string data(length, '\0');
  std::uint64_t state = seed * 2 + 1;
  for (char& byte : data) {
    state = state * 6364136223846793005 + 1442695040888963407;
    byte = static_cast<char>(state >> 56);
  }
  return data;
}

Qcow2Chain::Qcow2Chain(sim::Disk& disk, sim::World& world, const ChainShape& shape)
    : shape_(shape) {
  const std::uint64_t unit = shape.geometry.cluster_size();
  Qcow2Shape top;
  top.version = shape.version;
  top.geometry = shape.geometry;
  top.size = shape.clusters * unit + 1 + world.scheduler.choose(unit - 1);
  if (shape.lazy) top.compatible = formats::qcow2::compatible::lazy_refcounts;
  if (shape.data != DataFile::none) {
    top.data_file = "data";
    if (shape.data == DataFile::raw) top.autoclear = formats::qcow2::autoclear::data_file_raw;
    disk.make("data", shape.data == DataFile::raw ? top.size : 0);
  }
  content_.assign(top.size, '\0');
  if (shape.layers) {
    const std::string base = bytes_from(1, top.size / 3 + 5);
    content_.replace(0, base.size(), base);
    const auto bytes = std::as_bytes(std::span(base));
    disk.make("base", std::vector<std::byte>(bytes.begin(), bytes.end()));
    Qcow2Shape middle;
    middle.geometry.cluster_bits = 10;
    middle.size = top.size / 3 * 2 + 7;
    middle.backing = "base";
    disk.make("middle", empty_qcow2(middle));
    Qcow2Stack stack(world, "middle", Qcow2Stack::Mode::writable, Qcow2Stack::Caching::buffered,
                     {{"backing", nested(middle_backing())}});
    EXPECT_TRUE(stack.opened()) << stack.opened().error().message;
    for (std::uint64_t at = 0; at < middle.size; at += middle.size / 7) {
      const std::uint64_t length = std::min(middle.size / 17, middle.size - at);
      const std::string data = bytes_from(at + 2, length);
      EXPECT_TRUE(stack.write(at, data));
      content_.replace(at, length, data);
      const Range zeroes{at + length, std::min(middle.size / 40, middle.size - at - length)};
      EXPECT_TRUE(stack.zero(zeroes));
      content_.replace(zeroes.offset, zeroes.length, std::string(zeroes.length, '\0'));
    }
    EXPECT_TRUE(stack.close());
    top.backing = "middle";
  }
  disk.make("top", empty_qcow2(top));
}

Qcow2Stack::Keys Qcow2Chain::keys() const {
  Qcow2Stack::Keys keys{{"l2-cache-size", option_text("2K")},
                        {"refcount-cache-size", option_text("2K")}};
  if (shape_.layers) {
    Options middle = layer("qcow2", "middle");
    middle.set("backing", nested(middle_backing()));
    keys.emplace_back("backing", nested(std::move(middle)));
  }
  return keys;
}

std::uint64_t Qcow2Chain::any_offset(sim::Scheduler& dice) const {
  const std::uint64_t unit = shape_.geometry.cluster_size();
  if (dice.one_in(10)) return dice.choose(size());
  const std::uint64_t stretch = size() / 8;
  return std::min(dice.choose(8) * stretch + dice.choose(3 * unit), size() - 1);
}

}  // namespace test
