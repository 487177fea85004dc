// export.h - a name on the wire, and the view of the graph that it stands for.
#pragma once

#include <memory>
#include <string>

#include "graph/block_backend.h"
#include "nbd/offer.h"

namespace nbd {

class Export {
 public:
  // Errors: invalid_argument (a name or description that can't stand on the wire).
  static Result<std::unique_ptr<Export>> create(std::string name, std::string description,
                                                std::unique_ptr<graph::BlockBackend> view);

  const std::string& name() const { return name_; }
  const std::string& description() const { return description_; }
  graph::BlockBackend& view() { return *view_; }
  const graph::BlockBackend& view() const { return *view_; }
  // As the view and its node are now.
  Offer offer() const;
  // Hands the view back, for detaching it.
  // Requires: no connection uses the export.
  std::unique_ptr<graph::BlockBackend> release() { return std::move(view_); }

 private:
  Export(std::string name, std::string description, std::unique_ptr<graph::BlockBackend> view)
      : name_(std::move(name)), description_(std::move(description)), view_(std::move(view)) {}
  std::string name_;
  std::string description_;
  std::unique_ptr<graph::BlockBackend> view_;
};

}  // namespace nbd
