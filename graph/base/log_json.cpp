#include "graph/base/log_json.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace {

std::string_view name_of(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return "debug";
    case LogLevel::info:
      return "info";
    case LogLevel::warning:
      return "warning";
    case LogLevel::error:
      break;
  }
  return "error";
}

std::string utc(std::chrono::system_clock::time_point when) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(when);
  const auto ms = std::chrono::floor<std::chrono::milliseconds>(when - seconds);
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z",
                     fmt::gmtime(std::chrono::system_clock::to_time_t(seconds)), ms.count());
}

}  // namespace

std::string json_line(std::chrono::system_clock::time_point when, LogLevel level,
                      std::string_view text, const LogFields& about) {
  using Json = nlohmann::ordered_json;
  Json line = Json::object();
  line["time"] = utc(when);
  line["level"] = name_of(level);
  line["message"] = text;
  if (about.connection) line["connection"] = *about.connection;
  if (about.export_name) line["export"] = *about.export_name;
  if (about.request) line["request"] = *about.request;
  constexpr int one_line = -1;
  return line.dump(one_line, ' ', false, Json::error_handler_t::replace);
}
