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

// A graph that a command makes for itself, and the view of its top.
class OneView {
 public:
  // Lifetime: `home` and the drivers outlive it.
  OneView(Home& home, Drivers drivers) : graph_(home, drivers) {}
  // Requires: close() has returned, or open() has failed.
  ~OneView() = default;

  // Errors: what opening says; then it is closed again.
  Task<> open(const Options& top, FileUse use);
  // Flushes what was written, and stores what is kept in memory. Errors: something may be lost.
  Task<> close();

  // Requires: it is open.
  graph::BlockBackend& operator*() { return *view_; }

 private:
  Task<> attach(const Options& top, FileUse use);

  graph::Graph graph_;
  std::unique_ptr<graph::BlockBackend> view_;
};

class OneFile {
 public:
  // Lifetime, Requires: as of OneView.
  OneFile(Home& home, Drivers drivers) : view_(home, drivers) {}

  // Errors: what opening says, with the file's name in it; then it is closed again.
  Task<> open(const std::string& filename, FileUse use);
  // Errors: something may be lost.
  Task<> close();

  // Requires: it is open.
  graph::BlockBackend& view() { return *view_; }
  formats::qcow2::Medium& medium() { return *medium_; }

 private:
  OneView view_;
  std::unique_ptr<formats::qcow2::MediumOf<graph::BlockBackend>> medium_;
};

}  // namespace app
