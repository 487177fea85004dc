#include "formats/qcow2/health.h"

namespace formats::qcow2 {

std::string reason(const Error& error) {
  constexpr std::string_view format = "qcow2: ";
  return error.message.substr(error.message.starts_with(format) ? format.size() : 0);
}

Error Health::fault(Errc code, std::string_view what, std::uint64_t offset) const {
  return {code, node_, offset, node_ + ": qcow2: " + std::string(what)};
}

Error Health::corrupt(std::string_view what, std::uint64_t offset) {
  if (found_.empty()) {
    found_ = what;
    log_->error(node_ + ": qcow2: the image is corrupt: " + found_ +
                (writable_ ? "; it is not served any more; see gantry check --repair" : ""));
  }
  return fault(Errc::corrupt, what, offset);
}

}  // namespace formats::qcow2
