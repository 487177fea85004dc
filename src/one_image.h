// one_image.h - an image by its name and format, for commands that work on what it shows: a graph
// of its layers, and the view through which it is used.
#pragma once

#include <memory>
#include <string>

#include "src/one_file.h"

namespace app {

enum class Layers : std::uint8_t {
  all,  // those below it, too, as the images name them
  own,  // what lies below is neither opened nor seen
};

class OneImage {
 public:
  // Lifetime: `home` and the drivers outlive it.
  OneImage(Home& home, Drivers drivers) : home_(home), drivers_(drivers), graph_(home, drivers) {}

  // `format`: "" is what it looks like. Errors: not_supported (a format that is not known here),
  // what opening says; then it is closed again. Requires: use is not FileUse::look.
  Task<> open(const std::string& filename, std::string format, Layers layers, FileUse use);
  // Flushes what was written. Errors: something may be lost.
  Task<> close();

  // Requires: it is open.
  graph::BlockBackend& view() { return *view_; }
  const std::string& format() const { return format_; }

 private:
  Task<> attach(const Options& options, FileUse use);

  Home& home_;
  Drivers drivers_;
  graph::Graph graph_;
  std::string format_;
  std::unique_ptr<graph::BlockBackend> view_;
};

}  // namespace app
