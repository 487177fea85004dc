#include "src/image_change.h"

#include "src/one_image.h"

namespace app {
namespace {

// Nobody has a view of it: a snapshot can't be applied to a disk that somebody looks at.
Task<> open_and_work(graph::Graph& graph, const std::string& filename, FileUse use,
                     const std::function<Task<>(graph::Node&)>& work) {
  const Options options = image_options(filename, "qcow2", Layers::own, use);
  auto node = co_await graph.add("image", options);
  if (node) co_return co_await work(**node);
  Error error = std::move(node).error();
  if (error.code == Errc::busy) {
    error.message +=
        " (where a gantry serves the image, ask that by its control socket: gantry ctl)";
  }
  co_return std::unexpected(std::move(error));
}

}  // namespace

Task<> with_image(Worker& worker, Drivers drivers, const std::string& filename, FileUse use,
                  const std::function<Task<>(graph::Node&)>& work) {
  graph::Graph graph(worker.home(), drivers);
  Result<> done = co_await open_and_work(graph, filename, use, work);
  Result<> closed = co_await graph.close();
  co_return done ? closed : done;
}

}  // namespace app
