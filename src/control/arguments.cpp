#include <algorithm>
#include <limits>

#include "src/control/command.h"

namespace app::control {
namespace {

std::unexpected<Error> refuse(std::string why) {
  return failure(Errc::invalid_argument, std::move(why));
}

Result<> check_uint32(const Json& value, const std::string& name) {
  if (value.integer() == nullptr && value.large_integer() == nullptr) {
    return refuse("Parameter '" + name + "' expects uint64");
  }
  if (value.integer() == nullptr || !std::in_range<std::uint32_t>(*value.integer())) {
    return refuse("Parameter '" + name + "' expects uint32_t");
  }
  return ok;
}

// "" when it is right, else what was expected.
std::string_view expected_instead(const Json& value, ArgumentKind kind) {
  switch (kind) {
    case ArgumentKind::string:
      return value.string() != nullptr ? "" : "string";
    case ArgumentKind::boolean:
      return value.boolean() != nullptr ? "" : "boolean";
    case ArgumentKind::array:
      return value.array() != nullptr ? "" : "array";
    case ArgumentKind::object:
      return value.object() != nullptr ? "" : "object";
    case ArgumentKind::uint32:
    case ArgumentKind::anything:
      break;
  }
  return "";
}

}  // namespace

Result<> check_arguments(const Json& given, std::span<const Argument> declared,
                         const std::string& path) {
  for (const Argument& argument : declared) {
    const std::string name = path + std::string(argument.name);
    const Json* value = given.find(argument.name);
    if (value == nullptr) {
      if (argument.presence == Presence::optional) continue;
      return refuse("Parameter '" + name + "' is missing");
    }
    if (argument.kind == ArgumentKind::uint32) {
      if (Result<> fits = check_uint32(*value, name); !fits) return fits;
    }
    if (const std::string_view expected = expected_instead(*value, argument.kind);
        !expected.empty()) {
      return refuse("Invalid parameter type for '" + name +
                    "', expected: " + std::string(expected));
    }
  }
  for (const auto& [key, value] : *given.object()) {
    if (std::ranges::find(declared, key, &Argument::name) == declared.end()) {
      return refuse("Parameter '" + path + key + "' is unexpected");
    }
  }
  return ok;
}

bool Arguments::boolean(std::string_view name, Default absent) const {
  const Json* value = find(name);
  return value == nullptr ? absent == Default::yes : *value->boolean();
}

std::uint32_t Arguments::uint32(std::string_view name, std::uint32_t absent) const {
  const Json* value = find(name);
  return value == nullptr ? absent : static_cast<std::uint32_t>(*value->integer());
}

}  // namespace app::control
