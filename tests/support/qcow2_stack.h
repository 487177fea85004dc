// qcow2_stack.h - an image on a simulated disk, opened, with a writable view: what the tests of
// qcow2 act on. Opened again on the same disk it is another process.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graph/graph.h"
#include "tests/support/qcow2_image.h"
#include "tests/support/world.h"

namespace test {

class Qcow2Stack {
 public:
  using Keys = std::vector<std::pair<const char*, OptionValue>>;
  enum class Mode : std::uint8_t { read_only, writable };
  enum class Caching : std::uint8_t { buffered, direct };

  // `path`: of the image. `keys`: of the qcow2 node.
  Qcow2Stack(sim::World& world, const std::string& path, Mode mode = Mode::writable,
             Caching caching = Caching::buffered, Keys keys = {});
  Qcow2Stack(const Qcow2Stack&) = delete;
  Qcow2Stack& operator=(const Qcow2Stack&) = delete;
  ~Qcow2Stack();

  // How opening went; without it there is no view.
  const Result<>& opened() const { return opened_; }
  graph::BlockBackend& view() { return *view_; }
  graph::Node& node() { return *graph_.find("disk"); }
  graph::Graph& graph() { return graph_; }
  // Detaches the view and closes all nodes.
  Result<> close();

  Result<std::string> read(Range range);
  Result<> write(std::uint64_t offset, std::string_view data, graph::WriteFlags flags = {});
  Result<> zero(Range range, graph::ZeroFlags flags = {});
  Result<> discard(Range range) { return world_.run(view_->discard(range)); }
  // The view is attached anew.
  Result<> resize(std::uint64_t size);
  // A snapshot becomes the disk; the view is attached anew.
  Result<> apply(const std::string& snapshot);
  Result<> flush() { return world_.run(view_->flush()); }

 private:
  Task<> build(const std::string& path, Mode mode, Caching caching, const Keys& keys);
  Task<> end();
  Task<> show(Mode mode);
  Task<> resize_detached(std::uint64_t size);
  Task<> apply_detached(std::string snapshot);
  sim::World& world_;
  graph::Graph graph_;
  std::unique_ptr<graph::BlockBackend> view_;
  Result<> opened_;
};

OptionValue option_text(std::string text);
OptionValue option_flag(bool flag);

}  // namespace test
