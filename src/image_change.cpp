#include "src/image_change.h"

#include <filesystem>
#include <memory>

namespace app {
namespace {

OptionValue text(std::string value) { return OptionValue{std::move(value), {}}; }

Options description(const std::string& filename, ImageUse use) {
  std::error_code unknown;  // then opening it says what is wrong
  const bool is_device = std::filesystem::is_block_file(filename, unknown);
  const bool only_read = use == ImageUse::look;
  auto file = std::make_shared<Options>();
  file->set("driver", text(is_device ? "host_device" : "file"));
  file->set("filename", text(filename));
  file->set("read-only", OptionValue{only_read, {}});
  Options image;
  image.set("driver", text("qcow2"));
  image.set("file", OptionValue{std::move(file), {}});
  image.set("backing", text(""));
  image.set("read-only", OptionValue{only_read, {}});
  return image;
}

Task<> open_and_work(graph::Graph& graph, const std::string& filename, ImageUse use,
                     const std::function<Task<>(graph::Node&)>& work) {
  const Options options = description(filename, use);
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

Task<> with_image(Worker& worker, Drivers drivers, const std::string& filename, ImageUse use,
                  const std::function<Task<>(graph::Node&)>& work) {
  graph::Graph graph(worker.home(), drivers);
  Result<> done = co_await open_and_work(graph, filename, use, work);
  Result<> closed = co_await graph.close();
  co_return done ? closed : done;
}

}  // namespace app
