// json_reader.h - the values in a stream of JSON, wherever it is cut: they may stand on one line or
// on many, without anything between them. As QEMU does, it takes strings in single quotes, too.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "graph/base/bytes.h"
#include "graph/base/json.h"

namespace app::control {

// Of one value.
struct ReaderLimits {
  std::size_t length = 4 * MiB;  // bytes of text
  JsonLimits value;
};

class JsonReader {
 public:
  explicit JsonReader(ReaderLimits limits = {}) : limits_(limits) {}

  // Takes from the front of `bytes` what belongs to the first value in it, and gives that once it
  // is complete. Nothing: all bytes are taken, and the value goes on or none has begun. After an
  // error everything up to the end of the line, or a byte 0xff, is skipped where that was in the
  // midst of a value. Errors: invalid_argument, in the words of QMP; no_space for a value that is
  // too long or nested too deep: then nobody knows where the next one begins, and the stream is
  // good for nothing any more.
  std::optional<Result<Json>> take(std::string_view& bytes);

 private:
  enum class State : std::uint8_t {
    between,        // values
    inside,         // an array or object, but no string
    word,           // a number or keyword that is a value by itself
    double_quoted,  // string
    single_quoted,
    skipping,  // what follows a mistake
  };
  std::optional<Result<Json>> take(char byte);
  std::optional<Result<Json>> take_inside(char byte);
  std::optional<Result<Json>> take_in_string(char byte);
  Result<Json> finish();
  std::unexpected<Error> stray(char byte);
  void reset(State next);

  const ReaderLimits limits_;
  State state_ = State::between;
  bool escaped_ = false;  // within a string, behind a backslash
  std::string text_;      // of the value so far, as JSON has it
  std::string closers_;   // that are still missing, the innermost last
};

}  // namespace app::control
