#include "graph/port.h"

#include <algorithm>

namespace graph {

const Port* find_port(std::span<const Port> ports, std::string_view wanted) {
  auto found = std::ranges::find(ports, wanted, &Port::id);
  if (found == ports.end()) found = std::ranges::find(ports, wanted, &Port::name);
  return found == ports.end() ? nullptr : &*found;
}

}  // namespace graph
