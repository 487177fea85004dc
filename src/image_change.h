// image_change.h - for commands that work on what a qcow2 image keeps beside its disk: the image as
// a node, without the layer below, while nobody else writes it.
#pragma once

#include <functional>
#include <string>

#include "graph/graph.h"
#include "src/one_file.h"
#include "src/worker.h"

namespace app {

// Opens the image, does `work` with it, and closes it, which stores what was changed.
// Errors: what opening says (busy: how to ask the daemon that serves it); the first one of the
// others. Requires: use is not FileUse::look. Lifetime: the parameters outlive the task.
Task<> with_image(Worker& worker, Drivers drivers, const std::string& filename, FileUse use,
                  const std::function<Task<>(graph::Node&)>& work);

}  // namespace app
