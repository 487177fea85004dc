#include "src/json.h"

#include <fmt/format.h>

#include "graph/base/log.h"

namespace app {
namespace {

std::string quoted(const std::string& value) {
  const std::string text = is_utf8(value) ? value : printable(value, value.size());
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      result += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      result += c;
    }
  }
  return result + '"';
}

}  // namespace

void Json::set(std::string key, Json value) {
  std::get<Members>(data_).emplace_back(std::move(key), std::move(value));
}

void Json::add(Json value) { std::get<Elements>(data_).push_back(std::move(value)); }

std::string Json::text(std::size_t indent) const {
  if (const bool* value = std::get_if<bool>(&data_)) return *value ? "true" : "false";
  if (const auto* value = std::get_if<std::uint64_t>(&data_)) return std::to_string(*value);
  if (const auto* value = std::get_if<std::string>(&data_)) return quoted(*value);
  constexpr std::size_t step = 4;
  const std::string inner = "\n" + std::string(indent + step, ' ');
  std::string result;
  if (const auto* members = std::get_if<Members>(&data_)) {
    for (const auto& [key, value] : *members) {
      result +=
          (result.empty() ? "" : ",") + inner + quoted(key) + ": " + value.text(indent + step);
    }
    return result.empty() ? "{}" : "{" + result + "\n" + std::string(indent, ' ') + "}";
  }
  for (const Json& value : std::get<Elements>(data_)) {
    result += (result.empty() ? "" : ",") + inner + value.text(indent + step);
  }
  return result.empty() ? "[]" : "[" + result + "\n" + std::string(indent, ' ') + "]";
}

}  // namespace app
