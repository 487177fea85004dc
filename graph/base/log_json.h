// log_json.h - a line of the log as JSON.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "graph/base/log.h"

// {"time":"2026-01-31T12:00:00.123Z","level":"info","message":"...","connection":"..."}: one
// object, without a line feed; "connection", "export" and "request" only where `about` has them.
// Invalid UTF-8 becomes U+FFFD.
std::string json_line(std::chrono::system_clock::time_point when, LogLevel level,
                      std::string_view text, const LogFields& about);
