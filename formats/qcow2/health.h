// health.h - what is known of an image's integrity, and the words in which it is told.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "graph/base/error.h"
#include "graph/base/log.h"

namespace formats::qcow2 {

// What a pure function says, for a message that begins with the node's name and the format.
std::string reason(const Error& error);

class Health {
 public:
  // Lifetime: the log outlives it.
  Health(std::string node, Log& log) : node_(std::move(node)), log_(&log) {}

  const std::string& node() const { return node_; }
  // "disk0: qcow2: ..."
  Error fault(Errc code, std::string_view what, std::uint64_t offset = 0) const;
  // The image contradicts itself. The first time it is a line in the log; an image that may be
  // written serves nobody from then on.
  Error corrupt(std::string_view what, std::uint64_t offset = 0);
  void set_writable(bool writable) { writable_ = writable; }
  bool found_any() const { return !found_.empty(); }
  // Errors: corrupt, for good.
  bool failed() const { return writable_ && !found_.empty(); }
  Error failure_found() const {
    return fault(Errc::corrupt, "the image was found corrupt: " + found_);
  }
  // Corruption was found, and the image does not say so yet.
  bool wants_marking() const { return failed() && !marked_; }
  void set_marked() { marked_ = true; }

 private:
  std::string node_;
  Log* log_;
  bool writable_ = false;
  bool marked_ = false;
  std::string found_;
};

}  // namespace formats::qcow2
