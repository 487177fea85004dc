// log.h - what the operator reads on stderr.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

enum class LogLevel : std::uint8_t { debug, info, warning, error };

class Log {
 public:
  virtual ~Log() = default;
  virtual void write(LogLevel level, std::string_view text) = 0;
  virtual bool enabled(LogLevel level) const = 0;

  void debug(std::string_view text) { write(LogLevel::debug, text); }
  void info(std::string_view text) { write(LogLevel::info, text); }
  void warning(std::string_view text) { write(LogLevel::warning, text); }
  void error(std::string_view text) { write(LogLevel::error, text); }
};

// One line per call on stderr: time, level, text.
std::unique_ptr<Log> stderr_log(LogLevel least);

// `text` from outside as it may stand in a log or on a terminal: control characters and invalid
// UTF-8 become
// \xNN, anything beyond `length_max` bytes is cut.
std::string printable(std::string_view text, std::size_t length_max = 256);

// True for well-formed UTF-8 (no surrogates, no overlong forms).
bool is_utf8(std::string_view text);
