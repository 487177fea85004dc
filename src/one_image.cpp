#include "src/one_image.h"

#include <algorithm>

#include "src/command_line.h"
#include "src/image_format.h"

namespace app {
namespace {

Options description(const std::string& filename, const std::string& format, Layers layers,
                    FileUse use) {
  Options image;
  image.set("driver", OptionValue{format, {}});
  image.set("file", OptionValue{std::make_shared<Options>(file_options(filename, use)), {}});
  if (layers == Layers::own && format == "qcow2") image.set("backing", OptionValue{"", {}});
  image.set("read-only", OptionValue{use != FileUse::change, {}});
  return image;
}

}  // namespace

Task<> OneImage::attach(const Options& options, FileUse use) {
  CO_TRY(std::shared_ptr<graph::Node> node, co_await graph_.add("image", options));
  CO_TRY(view_, co_await graph_.attach(std::move(node), view_options(use)));
  co_return ok;
}

Task<> OneImage::open(const std::string& filename, std::string format, Layers layers, FileUse use) {
  CO_TRY(format_, co_await format_of_image(home_, filename, std::move(format)));
  const std::vector<std::string> known = format_names(drivers_);
  if (std::ranges::find(known, format_) == known.end()) {
    co_return failure(Errc::not_supported,
                      filename + " is " + format_ + ", which is not known here");
  }
  Result<> done = co_await attach(description(filename, format_, layers, use), use);
  if (!done) (void)co_await graph_.close();
  co_return done;
}

Task<> OneImage::close() {
  Result<> flushed = ok;
  if (view_->writable()) flushed = co_await view_->flush();
  const Result<> detached = co_await graph_.detach(std::move(view_));
  const Result<> closed = co_await graph_.close();  // what is kept in memory is stored here
  if (!flushed) co_return flushed;
  co_return detached ? closed : detached;
}

}  // namespace app
