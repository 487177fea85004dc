#include "graph/base/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <cstddef>

#include "graph/base/log_json.h"

namespace {

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return spdlog::level::debug;
    case LogLevel::info:
      return spdlog::level::info;
    case LogLevel::warning:
      return spdlog::level::warn;
    case LogLevel::error:
      break;
  }
  return spdlog::level::err;
}

class StderrLog final : public Log {
 public:
  StderrLog(LogLevel least, LogFormat format)
      : format_(format), logger_("gantry", std::make_shared<spdlog::sinks::stderr_sink_mt>()) {
    logger_.set_level(to_spdlog(least));
    logger_.set_pattern(format == LogFormat::json ? "%v" : "%Y-%m-%dT%H:%M:%S.%e %l: %v");
    logger_.flush_on(spdlog::level::debug);
  }
  bool enabled(LogLevel level) const override { return logger_.should_log(to_spdlog(level)); }
  void set_level(LogLevel least) override { logger_.set_level(to_spdlog(least)); }

 private:
  void put(LogLevel level, std::string_view text, const LogFields& about) override {
    if (!enabled(level)) return;
    if (format_ == LogFormat::text) {
      logger_.log(to_spdlog(level), "{}", text);
    } else {
      logger_.log(to_spdlog(level), "{}",
                  json_line(std::chrono::system_clock::now(), level, text, about));
    }
  }

  const LogFormat format_;
  spdlog::logger logger_;  // takes its own lock around each line
};

// The length of the well-formed UTF-8 sequence at the front of `text`, 0 when there is none.
std::size_t utf8_sequence(std::string_view text) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = at(0);
  std::size_t length = 0;
  std::uint32_t point = 0;
  std::uint32_t least = 0;
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead < 0xe0) {
    length = 2, point = lead & 0x1f, least = 0x80;
  } else if (lead >= 0xe0 && lead < 0xf0) {
    length = 3, point = lead & 0x0f, least = 0x800;
  } else if (lead >= 0xf0 && lead < 0xf5) {
    length = 4, point = lead & 0x07, least = 0x10000;
  } else {
    return 0;
  }
  if (text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xc0) != 0x80) return 0;
    point = point << 6 | (at(i) & 0x3f);
  }
  const bool surrogate = point >= 0xd800 && point < 0xe000;
  return point < least || point > 0x10ffff || surrogate ? 0 : length;
}

}  // namespace

std::unique_ptr<Log> stderr_log(LogLevel least, LogFormat format) {
  return std::make_unique<StderrLog>(least, format);
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t length = utf8_sequence(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string printable(std::string_view text, std::size_t length_max) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string result;
  while (!text.empty()) {
    const auto byte = static_cast<unsigned char>(text[0]);
    const std::size_t length = byte < 0x20 || byte == 0x7f ? 0 : utf8_sequence(text);
    const bool c1_control =
        length == 2 && byte == 0xc2 && static_cast<unsigned char>(text[1]) < 0xa0;
    const std::size_t taken = length == 0 ? 1 : length;
    std::string shown(text.substr(0, taken));
    if (length == 0 || c1_control) {
      shown.clear();
      for (const char c : text.substr(0, taken)) {
        const auto value = static_cast<unsigned char>(c);
        shown += "\\x";
        shown += digits[value >> 4];
        shown += digits[value & 15];
      }
    }
    if (result.size() + shown.size() > length_max) return result + "...";
    result += shown;
    text.remove_prefix(taken);
  }
  return result;
}
