#include "graph/driver.h"

#include <algorithm>

#include "graph/base/log.h"

namespace graph {
namespace {

constexpr std::size_t name_length_max = 31;

std::unexpected<Error> refuse(const Position& where, std::string why) {
  return std::unexpected(at_position(where, Error(Errc::invalid_argument, std::move(why))));
}

}  // namespace

bool is_node_name(std::string_view name) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  const auto inner = [&](char c) {
    return letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
  };
  return !name.empty() && name.size() <= name_length_max && letter(name.front()) &&
         std::ranges::all_of(name, inner);
}

Result<const Driver*> check_node(std::string_view name, const Options& options,
                                 std::span<const Driver* const> drivers) {
  if (!name.empty() && !is_node_name(name)) {
    return refuse(options.position(), "'" + printable(name) +
                                          "' is no node name: 1 to 31 of A-Z a-z 0-9 - . _, a "
                                          "letter first");
  }
  const OptionValue* kind = options.find("driver");
  if (kind == nullptr) return refuse(options.position(), "the key 'driver' is missing");
  if (kind->text() == nullptr) return refuse(kind->position, "'driver': expected a string");
  const auto found = std::ranges::find(drivers, *kind->text(), &Driver::name);
  if (found == drivers.end()) {
    std::vector<std::string> known;
    for (const Driver* driver : drivers) known.emplace_back(driver->name);
    std::string why = "there is no driver '" + printable(*kind->text()) + "'";
    if (const auto near = nearest(*kind->text(), known)) why += ", did you mean '" + *near + "'?";
    return refuse(kind->position, std::move(why));
  }
  if (auto keys = check_options(options, (*found)->options, common_node_options()); !keys) {
    return std::unexpected(std::move(keys).error());
  }
  for (const OptionSpec& spec : (*found)->options) {
    const OptionValue* child = spec.kind == Kind::node ? options.find(spec.key) : nullptr;
    if (child == nullptr || child->table() == nullptr) continue;
    if (auto inner = check_node("", *child->table(), drivers); !inner) return inner;
  }
  return *found;
}

}  // namespace graph
