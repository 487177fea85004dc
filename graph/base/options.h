// options.h - what somebody typed, as a tree of keys and values with the place where each stands,
// and the tables that say which keys there are. TOML and the command line make such trees; drivers
// read them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "graph/base/bytes.h"
#include "graph/base/error.h"

// Where a value stands: "disk.toml:12:3". Without a file (command line, program) it prints as
// nothing.
struct Position {
  std::string file;
  std::uint32_t line = 0;
  std::uint32_t column = 0;
  // "disk.toml:12:3: ", or "".
  std::string prefix() const;
};

// `error` with the position in front of its message.
Error at_position(const Position& position, Error error);

class Options;
struct OptionValue;
using OptionList = std::vector<OptionValue>;

struct OptionValue {
  std::variant<bool, std::int64_t, double, std::string, OptionList, std::shared_ptr<Options>> data;
  Position position;

  const Options* table() const;
  const std::string* text() const { return std::get_if<std::string>(&data); }
  // "a string", "a table", ... for messages
  std::string_view kind_name() const;
};

// One table. Keys keep their order. Dots reach into nested tables: find("cache.direct").
class Options {
 public:
  Options() = default;
  explicit Options(Position where) : position_(std::move(where)) {}

  void set(std::string key, OptionValue value);
  const OptionValue* find(std::string_view dotted_key) const;
  const std::vector<std::pair<std::string, OptionValue>>& entries() const { return entries_; }
  const Position& position() const { return position_; }
  // The folder that relative file names in here start from; "" is the current one.
  const std::string& directory() const { return directory_; }
  void set_directory(std::string folder) { directory_ = std::move(folder); }

 private:
  std::vector<std::pair<std::string, OptionValue>> entries_;
  Position position_;
  std::string directory_;
};

enum class Kind : std::uint8_t {
  boolean,
  integer,
  bytes,     // a size: 512, "64K", "1G"; powers of 1024
  duration,  // "10s", "500ms", "2min"
  text,
  path,    // relative to the folder of the file it stands in
  choice,  // one of `choices`, "a|b|c"
  node,    // the name of a node, or a table that describes one
  list,    // of whatever the reader of the key says
  words,   // a list of some of `choices`
  tables,  // a list of tables, each with the keys of `each`
};

struct OptionTable;

// One key that a table may have. The defaults are text, as a person would write them; "" is no
// default.
struct OptionSpec {
  std::string_view key;  // dotted for nested tables
  Kind kind;
  std::string_view fallback;
  std::string_view help;
  std::string_view choices = {};
  const OptionTable* each = nullptr;
};
struct OptionTable {
  std::span<const OptionSpec> keys;
};

// Checks that every key of `options` is in one of `known`, and that the value has its kind.
// Errors: invalid_argument with the position, what was expected, and the nearest known key.
Result<> check_options(const Options& options, std::span<const OptionSpec> known,
                       std::span<const OptionSpec> also = {});

// Reads single values out of checked options; the spec's default where the key is absent.
class OptionReader {
 public:
  OptionReader(const Options& options, std::span<const OptionSpec> specs,
               std::span<const OptionSpec> also = {})
      : options_(options), specs_(specs), also_(also) {}

  bool has(std::string_view key) const { return options_.find(key) != nullptr; }
  bool boolean(std::string_view key) const;
  std::int64_t integer(std::string_view key) const;
  std::uint64_t bytes(std::string_view key) const;
  std::uint64_t duration_ns(std::string_view key) const;
  std::string text(std::string_view key) const;  // also of choices
  std::string path(std::string_view key) const;  // resolved against the folder
  std::vector<std::string> words(std::string_view key) const;
  // One reader for each table in the list. Lifetime: a view into the options.
  std::vector<OptionReader> tables(std::string_view key) const;
  // The position of the key, or of the table when the key is absent.
  const Position& position(std::string_view key) const;
  const Options& options() const { return options_; }

 private:
  const OptionSpec& spec(std::string_view key) const;
  const Options& options_;
  std::span<const OptionSpec> specs_;
  std::span<const OptionSpec> also_;
};

// "64K" -> 65536. Suffixes K M G T P E, with or without "iB" or "B"; powers of 1024.
// Errors: invalid_argument (no number, unknown suffix, does not fit into 63 bits).
Result<std::uint64_t> parse_bytes(std::string_view text);
// "10s", "500ms", "2min", "1h"; nanoseconds.
Result<std::uint64_t> parse_duration_ns(std::string_view text);
// The candidate with the smallest edit distance to `word`, if it is near enough to be what was
// meant.
std::optional<std::string> nearest(std::string_view word, std::span<const std::string> candidates);
// 65536 -> "64K", 1000 -> "1000": exact, as a person would type it.
std::string format_bytes(std::uint64_t bytes);
