// log.h - what the operator reads on stderr, as lines of text or of JSON. Any thread may log.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

enum class LogLevel : std::uint8_t { debug, info, warning, error };
enum class LogFormat : std::uint8_t { text, json };

// What a line is about, for programs that read the log: each becomes a key of a JSON line. A text
// line does not show them, so the text says what people need to know of them.
struct LogFields {
  std::optional<std::string_view> connection = std::nullopt;   // Stream::peer()
  std::optional<std::string_view> export_name = std::nullopt;  // "" is the default export
  std::optional<std::string_view> request = std::nullopt;
};

class Log {
 public:
  virtual ~Log() = default;
  virtual bool enabled(LogLevel level) const = 0;
  // From the next line on.
  virtual void set_level(LogLevel least) = 0;

  void write(LogLevel level, std::string_view text, const LogFields& about = {}) {
    put(level, text, about);
  }
  void debug(std::string_view text, const LogFields& about = {}) {
    put(LogLevel::debug, text, about);
  }
  void info(std::string_view text, const LogFields& about = {}) {
    put(LogLevel::info, text, about);
  }
  void warning(std::string_view text, const LogFields& about = {}) {
    put(LogLevel::warning, text, about);
  }
  void error(std::string_view text, const LogFields& about = {}) {
    put(LogLevel::error, text, about);
  }

 private:
  virtual void put(LogLevel level, std::string_view text, const LogFields& about) = 0;
};

// One line per call on stderr: time, level, text; as JSON lines (json_line()) if wanted.
std::unique_ptr<Log> stderr_log(LogLevel least, LogFormat format = LogFormat::text);

// `text` from outside as it may stand in a log or on a terminal: control characters and invalid
// UTF-8 become \xNN, anything beyond `length_max` bytes is cut.
std::string printable(std::string_view text, std::size_t length_max = 256);

// True for well-formed UTF-8 (no surrogates, no overlong forms).
bool is_utf8(std::string_view text);
