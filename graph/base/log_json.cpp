#include "graph/base/log_json.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include "graph/base/json.h"

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
  Json line;
  line.set("time", utc(when));
  line.set("level", name_of(level));
  line.set("message", text);
  if (about.connection) line.set("connection", *about.connection);
  if (about.export_name) line.set("export", *about.export_name);
  if (about.request) line.set("request", *about.request);
  return to_text(line, JsonStyle::compact);
}
