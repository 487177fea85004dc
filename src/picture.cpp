#include "src/picture.h"

#include <algorithm>
#include <vector>

#include "graph/base/log.h"

namespace app {
namespace {

std::string kind_of(const graph::Node& node) {
  std::string text(node.driver().name);
  if (const std::string detail = node.detail(); !detail.empty()) text += " " + detail;
  text += ", " + format_bytes(node.size());
  if (node.common().read_only) text += ", read-only";
  return text;
}

std::string kind_of(const nbd::Export& item) {
  std::string text = format_bytes(item.view().size());
  if (const Range* window = item.view().window(); window != nullptr && window->offset != 0) {
    text += " from byte " + std::to_string(window->offset);
  }
  return text + (item.view().writable() ? ", writable" : ", read-only");
}

std::string rights(const graph::Edge& edge) {
  const auto list = [](graph::Permissions some) { return some.empty() ? "nothing" : some.text(); };
  return "takes " + list(edge.access().taken) + "; shares " + list(edge.access().shared);
}

std::string quoted(std::string_view text) { return "'" + printable(text) + "'"; }

// Graphviz: a quoted string, lines separated by a line feed's escape.
std::string dot_string(const std::vector<std::string>& lines) {
  std::string result = "\"";
  for (const std::string& line : lines) {
    if (result.size() > 1) result += "\\n";
    for (const char c : printable(line, 1024)) {
      if (c == '"' || c == '\\') result += '\\';
      result += c;
    }
  }
  return result + "\"";
}

std::string dot_edge(const std::string& from, const graph::Edge& edge, const std::string& label) {
  return "  " + from + " -> " + dot_string({"node " + edge.node().name()}) +
         " [label=" + dot_string({label, rights(edge)}) +
         (edge.may(graph::Permission::write) ? "" : ", style=dashed") + "];\n";
}

std::vector<const graph::Node*> nodes_of(std::span<const std::unique_ptr<Cell>> cells) {
  std::vector<const graph::Node*> all;
  for (const auto& cell : cells) {
    for (const graph::Node* node : cell->graph().nodes()) all.push_back(node);
  }
  return all;
}

// In the order of their names.
std::vector<const nbd::Export*> exports_of(std::span<const std::unique_ptr<Cell>> cells) {
  std::vector<const nbd::Export*> all;
  for (const auto& cell : cells) {
    for (const nbd::Export* item : cell->server().exports()) all.push_back(item);
  }
  std::ranges::sort(all, {}, &nbd::Export::name);
  return all;
}

}  // namespace

std::string to_text(std::span<const std::unique_ptr<Cell>> cells) {
  std::string text = "nodes:\n";
  for (const graph::Node* node : nodes_of(cells)) {
    text += "  " + node->name() + ": " + printable(kind_of(*node)) + "\n";
    for (const graph::Edge* edge : node->children()) {
      text += "    " + edge->name() + " -> " + edge->node().name() + " (" +
              std::string(to_string(edge->role())) + "): " + rights(*edge) + "\n";
    }
  }
  text += "exports:\n";
  for (const nbd::Export* item : exports_of(cells)) {
    text += "  " + quoted(item->name()) + " -> " + item->view().node().name() + ": " +
            kind_of(*item) + "\n    " + rights(item->view().edge()) + "\n";
  }
  return text;
}

std::string to_dot(std::span<const std::unique_ptr<Cell>> cells) {
  std::string text =
      "digraph gantry {\n"
      "  node [shape=box, fontname=\"sans-serif\"];\n"
      "  edge [fontname=\"sans-serif\", fontsize=10];\n";
  for (const nbd::Export* item : exports_of(cells)) {
    const std::string id = dot_string({"export " + item->name()});
    text += "  " + id +
            " [shape=cds, label=" + dot_string({"export " + quoted(item->name()), kind_of(*item)}) +
            "];\n";
    text += dot_edge(id, item->view().edge(), "view");
  }
  for (const graph::Node* node : nodes_of(cells)) {
    const std::string id = dot_string({"node " + node->name()});
    text += "  " + id + " [label=" + dot_string({node->name(), kind_of(*node)}) + "];\n";
    for (const graph::Edge* edge : node->children()) {
      text += dot_edge(id, *edge, edge->name() + " (" + std::string(to_string(edge->role())) + ")");
    }
  }
  return text + "}\n";
}

}  // namespace app
