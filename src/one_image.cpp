#include "src/one_image.h"

#include <algorithm>

#include "src/command_line.h"
#include "src/image_format.h"

namespace app {

Options image_options(const std::string& filename, const std::string& format, Layers layers,
                      FileUse use) {
  Options image;
  image.set("driver", OptionValue{format, {}});
  image.set("file", OptionValue{std::make_shared<Options>(file_options(filename, use)), {}});
  if (layers == Layers::own && format == "qcow2") image.set("backing", OptionValue{"", {}});
  image.set("read-only", OptionValue{use != FileUse::change, {}});
  return image;
}

Task<> OneImage::open(const std::string& filename, std::string format, Layers layers, FileUse use) {
  CO_TRY(format_, co_await format_of_image(home_, filename, std::move(format)));
  const std::vector<std::string> known = format_names(drivers_);
  if (std::ranges::find(known, format_) == known.end()) {
    co_return failure(Errc::not_supported,
                      filename + " is " + format_ + ", which is not known here");
  }
  const Options options = image_options(filename, format_, layers, use);
  co_return co_await view_.open(options, use);
}

}  // namespace app
