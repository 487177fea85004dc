#include "src/control/json_reader.h"

#include <utility>

#include "graph/base/log.h"

namespace app::control {
namespace {

// An idle client keeps no more memory than this of what it once sent, in bytes.
constexpr std::size_t kept_max = 64 * KiB;

constexpr std::string_view spaces = " \t\r\n";
constexpr std::string_view structure = "{}[],:\"'";

bool is_in(std::string_view some, char byte) { return some.find(byte) != some.npos; }

// 0xfe and 0xff are in no UTF-8; clients send 0xff to begin anew.
bool is_never_text(char byte) {
  const auto number = static_cast<unsigned char>(byte);
  return number < 0x20 || number >= 0xfe;
}

std::unexpected<Error> parse_error(Errc code, const std::string& what) {
  return failure(code, "JSON parse error, " + what);
}

}  // namespace

void JsonReader::reset(State next) {
  state_ = next;
  escaped_ = false;
  text_.clear();
  if (text_.capacity() > kept_max) text_.shrink_to_fit();
  closers_.clear();
}

std::unexpected<Error> JsonReader::stray(char byte) {
  const auto number = static_cast<unsigned char>(byte);
  reset(byte == '\n' || number == 0xff ? State::between : State::skipping);
  return parse_error(Errc::invalid_argument, "stray '" + printable({&byte, 1}) + "'");
}

Result<Json> JsonReader::finish() {
  Result<Json> value = parse_json(text_, limits_.value);
  reset(State::between);
  if (value) return value;
  return parse_error(Errc::invalid_argument, value.error().message);
}

std::optional<Result<Json>> JsonReader::take(std::string_view& bytes) {
  while (!bytes.empty()) {
    const char byte = bytes.front();
    // what ends a word may begin the next value
    if (state_ == State::word && (is_in(spaces, byte) || is_in(structure, byte))) return finish();
    bytes.remove_prefix(1);
    if (std::optional<Result<Json>> value = take(byte)) return value;
    if (text_.size() <= limits_.length && closers_.size() <= limits_.value.nesting) continue;
    const bool long_one = text_.size() > limits_.length;
    reset(State::between);
    return parse_error(Errc::no_space,
                       long_one ? "value longer than " + std::to_string(limits_.length) + " bytes"
                                : "nested deeper than " + std::to_string(limits_.value.nesting));
  }
  return std::nullopt;
}

std::optional<Result<Json>> JsonReader::take(char byte) {
  switch (state_) {
    case State::skipping:
      if (byte == '\n' || byte == '\xff') reset(State::between);
      return std::nullopt;
    case State::double_quoted:
    case State::single_quoted:
      return take_in_string(byte);
    case State::between:
    case State::inside:
    case State::word:
      break;
  }
  if (is_never_text(byte) && !is_in(spaces, byte)) return stray(byte);
  if (state_ == State::between) {
    if (is_in(spaces, byte)) return std::nullopt;
    if (is_in("}],:", byte)) return parse_error(Errc::invalid_argument, "expecting value");
    state_ = is_in(structure, byte) ? State::inside : State::word;
  }
  return take_inside(byte);
}

std::optional<Result<Json>> JsonReader::take_inside(char byte) {
  if (byte == '"' || byte == '\'') {
    state_ = byte == '"' ? State::double_quoted : State::single_quoted;
    byte = '"';
  }
  text_ += byte;
  if (byte == '{') closers_ += '}';
  if (byte == '[') closers_ += ']';
  if (byte != '}' && byte != ']') return std::nullopt;
  const char wanted = closers_.back();
  closers_.pop_back();
  if (closers_.empty() || byte != wanted) return finish();
  return std::nullopt;
}

std::optional<Result<Json>> JsonReader::take_in_string(char byte) {
  if (is_never_text(byte)) return stray(byte);
  const char quote = state_ == State::double_quoted ? '"' : '\'';
  if (std::exchange(escaped_, false)) {
    if (byte != '\'') text_ += '\\';  // JSON has no \'
    text_ += byte;
  } else if (byte == '\\') {
    escaped_ = true;
  } else if (byte == quote) {
    text_ += '"';
    state_ = State::inside;
    if (closers_.empty()) return finish();
  } else {
    if (byte == '"') text_ += '\\';
    text_ += byte;
  }
  return std::nullopt;
}

}  // namespace app::control
