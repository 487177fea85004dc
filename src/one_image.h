// one_image.h - an image by its name and format, for commands that work on what it shows: a graph
// of its layers, and the view through which it is used.
#pragma once

#include <string>

#include "src/one_file.h"

namespace app {

enum class Layers : std::uint8_t {
  all,  // those below it, too, as the images name them
  own,  // what lies below is neither opened nor seen
};

// How such an image is described to the graph.
Options image_options(const std::string& filename, const std::string& format, Layers layers,
                      FileUse use);

class OneImage {
 public:
  // Lifetime, Requires: as of OneView.
  OneImage(Home& home, Drivers drivers) : home_(home), drivers_(drivers), view_(home, drivers) {}

  // `format`: "" is what it looks like. Errors: not_supported (a format that is not known here),
  // what opening says; then it is closed again. Requires: use is not FileUse::look.
  Task<> open(const std::string& filename, std::string format, Layers layers, FileUse use);
  // Errors: something may be lost.
  Task<> close() { return view_.close(); }

  // Requires: it is open.
  graph::BlockBackend& view() { return *view_; }
  const std::string& format() const { return format_; }

 private:
  Home& home_;
  Drivers drivers_;
  OneView view_;
  std::string format_;
};

}  // namespace app
