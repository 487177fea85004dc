// image_stack.h - a file, raw nodes over it and views of every sort on them, for tests that draw
// lots: each view shows a stretch of the file.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "tests/support/world.h"

namespace test {

enum class Cached : std::uint8_t { yes, no };

struct ShownView {
  std::string name;
  std::unique_ptr<graph::BlockBackend> view;
  std::uint64_t start = 0;  // in bytes of the file
  bool writes = false;
  bool grows = false;
};

class ImageStack {
 public:
  // Requires: the file "disk" is there, at least 64 KiB long, a multiple of 4096.
  ImageStack(sim::World& world, Cached cached);
  ImageStack(const ImageStack&) = delete;
  ImageStack& operator=(const ImageStack&) = delete;
  // Detaches and closes everything.
  ~ImageStack();

  std::vector<ShownView> views;

 private:
  Task<> build(Cached cached);
  Task<> show(std::string name, const std::string& node, std::uint64_t start,
              graph::ViewOptions options);
  Task<> end();
  sim::World& world_;
  graph::Graph graph_;
};

}  // namespace test
