#include "src/control/find_node.h"

namespace app::control {
namespace {

// On the worker of the cell.
Task<bool> has_node(Cell& cell, const std::string& name) {
  co_return cell.graph().find(name) != nullptr;
}

}  // namespace

Task<Cell*> cell_with(Site& site, const std::string& node) {
  for (const auto& cell : site.cells()) {
    CO_TRY(const bool here, co_await site.visit(*cell, has_node(*cell, node)));
    if (here) co_return cell.get();
  }
  Cell* const none = nullptr;
  co_return none;
}

Error no_device(const std::string& device) {
  return {Errc::invalid_argument,
          "Cannot find device='" + device + "' nor node-name='" + device + "'"};
}

}  // namespace app::control
