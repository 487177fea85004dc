// new_image.h - the key `create` of a node with the driver qcow2: an image that is made before the
// graph is, if there is no file. The driver knows nothing of it: it opens what is there.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graph/base/options.h"

namespace app {

struct NewImage {
  std::string filename;                                    // of the image, made if it is not there
  std::vector<std::pair<std::string, std::string>> words;  // as for `gantry create -o`; right
  Position position;                                       // of the key
};

struct NodeWithImage {
  std::shared_ptr<const Options> options;  // without the key
  std::optional<NewImage> image;
};

// The description of a node by its name; null where there is none.
using FindNode = std::function<const Options*(std::string_view name)>;

// `options` of a node, split into what its driver is told and the image that is to be made.
// Errors: invalid_argument with the position, also when `file` is no node with the driver `file`.
Result<NodeWithImage> split_off_image(std::shared_ptr<const Options> options, const FindNode& find);

}  // namespace app
