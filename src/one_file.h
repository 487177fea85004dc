// one_file.h - a file or block device by its name, for commands that work on it as a whole: a graph
// of one node, and the view through which it is used.
#pragma once

#include <memory>
#include <string>

#include "formats/qcow2/medium.h"
#include "graph/graph.h"
#include "src/config.h"

namespace app {

enum class FileUse : std::uint8_t {
  look,    // read, whoever writes it meanwhile: no locks
  read,    // read, while nobody writes it
  change,  // read, written, made longer and shorter; nobody else has it open
};

// How such a file is described to the graph: whether it is a device is looked up.
Options file_options(const std::string& filename, FileUse use);
// The view that a command has for this use.
graph::ViewOptions view_options(FileUse use);

class OneFile {
 public:
  // Lifetime: `home` and the drivers outlive it.
  OneFile(Home& home, Drivers drivers) : graph_(home, drivers) {}
  // Requires: close() has returned, or open() has failed.
  ~OneFile() = default;

  // Errors: what opening says, with the file's name in it; then it is closed again.
  Task<> open(const std::string& filename, FileUse use);
  // Flushes what was written. Errors: something may be lost.
  Task<> close();

  // Requires: it is open.
  graph::BlockBackend& view() { return *view_; }
  formats::qcow2::Medium& medium() { return *medium_; }

 private:
  graph::Graph graph_;
  std::unique_ptr<graph::BlockBackend> view_;
  std::unique_ptr<formats::qcow2::MediumOf<graph::BlockBackend>> medium_;
};

}  // namespace app
