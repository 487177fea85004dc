#include "graph/base/options.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <charconv>
#include <limits>

#include "graph/base/log.h"

namespace {

constexpr std::uint64_t size_max =
    static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());

// What a node's reference or an own reader will look at more closely.
bool kind_fits(Kind kind, const OptionValue& value) {
  const auto holds = [&]<class T>(std::type_identity<T>) {
    return std::holds_alternative<T>(value.data);
  };
  const bool text = value.text() != nullptr;
  const bool integer = holds(std::type_identity<std::int64_t>{});
  switch (kind) {
    case Kind::boolean:
      return holds(std::type_identity<bool>{});
    case Kind::integer:
      return integer;
    case Kind::bytes:
    case Kind::duration:
      return text || integer;
    case Kind::text:
    case Kind::path:
    case Kind::choice:
      return text;
    case Kind::node:
      return text || value.table() != nullptr;
    case Kind::list:
    case Kind::words:
    case Kind::tables:
      return holds(std::type_identity<OptionList>{});
  }
  return false;
}

std::string_view wanted(Kind kind) {
  switch (kind) {
    case Kind::boolean:
      return "true or false";
    case Kind::integer:
      return "an integer";
    case Kind::bytes:
      return "a size such as 4096 or \"64K\"";
    case Kind::duration:
      return "a duration such as \"10s\"";
    case Kind::text:
      return "a string";
    case Kind::path:
      return "a file name";
    case Kind::choice:
      return "a string";
    case Kind::node:
      return "the name of a node, or a table that describes one";
    case Kind::list:
      return "a list";
    case Kind::words:
      return "a list of strings";
    case Kind::tables:
      return "a list of tables";
  }
  return "";
}

std::vector<std::string> split_choices(std::string_view choices) {
  std::vector<std::string> result;
  while (!choices.empty()) {
    const std::size_t bar = choices.find('|');
    result.emplace_back(choices.substr(0, bar));
    choices = bar == std::string_view::npos ? "" : choices.substr(bar + 1);
  }
  return result;
}

std::string quoted(std::string_view text) { return "'" + printable(text) + "'"; }

Result<std::uint64_t> bytes_of_value(const OptionValue& value) {
  if (const auto* number = std::get_if<std::int64_t>(&value.data)) {
    if (*number < 0) return failure(Errc::invalid_argument, "must not be negative");
    return static_cast<std::uint64_t>(*number);
  }
  return parse_bytes(*value.text());
}

// A bare number is seconds.
Result<std::uint64_t> duration_of_value(const OptionValue& value) {
  if (const auto* number = std::get_if<std::int64_t>(&value.data)) {
    return parse_duration_ns(std::to_string(*number) + "s");
  }
  return parse_duration_ns(*value.text());
}

Result<> check_choice(const OptionSpec& spec, const std::string& chosen) {
  const auto choices = split_choices(spec.choices);
  if (std::ranges::find(choices, chosen) != choices.end()) return ok;
  std::string all;
  for (const auto& choice : choices) all += (all.empty() ? "" : ", ") + choice;
  return failure(Errc::invalid_argument, quoted(chosen) + " is none of " + all);
}

Result<> check_elements(std::string_view key, const OptionSpec& spec, const OptionList& list) {
  for (const OptionValue& element : list) {
    const auto refuse = [&](const std::string& why) {
      return std::unexpected(
          at_position(element.position, Error(Errc::invalid_argument, quoted(key) + ": " + why)));
    };
    const bool fits =
        spec.kind == Kind::words ? element.text() != nullptr : element.table() != nullptr;
    if (!fits) {
      return refuse("expected " + std::string(wanted(spec.kind)) + ", and this is " +
                    std::string(element.kind_name()));
    }
    if (spec.kind == Kind::words) {
      if (auto chosen = check_choice(spec, *element.text()); !chosen) {
        return refuse(chosen.error().message);
      }
    } else if (auto inner = check_options(*element.table(), spec.each->keys); !inner) {
      return inner;
    }
  }
  return ok;
}

Result<> check_value(std::string_view key, const OptionSpec& spec, const OptionValue& value) {
  const auto refuse = [&](std::string_view why) {
    return std::unexpected(at_position(
        value.position, Error(Errc::invalid_argument, quoted(key) + ": " + std::string(why))));
  };
  if (!kind_fits(spec.kind, value)) {
    return refuse("expected " + std::string(wanted(spec.kind)) + ", not " +
                  std::string(value.kind_name()));
  }
  if (spec.kind == Kind::bytes) {
    if (auto size = bytes_of_value(value); !size) return refuse(size.error().message);
  }
  if (spec.kind == Kind::duration) {
    if (auto time = duration_of_value(value); !time) return refuse(time.error().message);
  }
  if (spec.kind == Kind::path && value.text()->empty()) return refuse("the file name is empty");
  if (spec.kind == Kind::choice) {
    if (auto chosen = check_choice(spec, *value.text()); !chosen) {
      return refuse(chosen.error().message);
    }
  }
  if (spec.kind == Kind::words || spec.kind == Kind::tables) {
    return check_elements(key, spec, std::get<OptionList>(value.data));
  }
  return ok;
}

class Checker {
 public:
  Checker(std::span<const OptionSpec> known, std::span<const OptionSpec> also) {
    for (const auto& spec : known) specs_.push_back(&spec);
    for (const auto& spec : also) specs_.push_back(&spec);
  }

  Result<> check(const Options& options, const std::string& prefix) const {
    for (const auto& [key, value] : options.entries()) {
      const std::string full = prefix + key;
      if (const OptionSpec* spec = find(full)) {
        if (auto checked = check_value(full, *spec, value); !checked) return checked;
      } else if (value.table() != nullptr && is_prefix(full + ".")) {
        if (auto checked = check(*value.table(), full + "."); !checked) return checked;
      } else {
        return std::unexpected(at_position(value.position, unknown(full)));
      }
    }
    return ok;
  }

 private:
  const OptionSpec* find(std::string_view key) const {
    for (const auto* spec : specs_) {
      if (spec->key == key) return spec;
    }
    return nullptr;
  }
  bool is_prefix(std::string_view prefix) const {
    return std::ranges::any_of(specs_, [&](auto* spec) { return spec->key.starts_with(prefix); });
  }
  Error unknown(std::string_view key) const {
    std::vector<std::string> keys;
    for (const auto* spec : specs_) {
      keys.emplace_back(spec->key);
      // the outer table of a nested key is a word that people mistype, too
      if (const auto dot = spec->key.find('.'); dot != std::string_view::npos) {
        keys.emplace_back(spec->key.substr(0, dot));
      }
    }
    std::string text = "unknown key " + quoted(key);
    if (const auto near = nearest(key, keys)) text += ", did you mean " + quoted(*near) + "?";
    return {Errc::invalid_argument, text};
  }
  std::vector<const OptionSpec*> specs_;
};

// A number with a fraction is refused: half a byte is a mistake.
Result<std::pair<std::uint64_t, std::string_view>> number_and_suffix(std::string_view text) {
  std::uint64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, number);
  if (error == std::errc::result_out_of_range) {
    return failure(Errc::invalid_argument, quoted(text) + " is too large");
  }
  if (error != std::errc{}) return failure(Errc::invalid_argument, quoted(text) + " is no number");
  return std::pair(number, std::string_view(stopped, static_cast<std::size_t>(end - stopped)));
}

Result<std::uint64_t> scaled(std::string_view text, std::uint64_t number, std::uint64_t unit) {
  if (number > size_max / unit) {
    return failure(Errc::invalid_argument, quoted(text) + " is too large");
  }
  return number * unit;
}

}  // namespace

std::string Position::prefix() const {
  if (file.empty()) return "";
  if (line == 0) return file + ": ";
  return file + ":" + std::to_string(line) + ":" + std::to_string(column) + ": ";
}

Error at_position(const Position& position, Error error) {
  error.message.insert(0, position.prefix());
  return error;
}

const Options* OptionValue::table() const {
  const auto* held = std::get_if<std::shared_ptr<Options>>(&data);
  return held == nullptr ? nullptr : held->get();
}

std::string_view OptionValue::kind_name() const {
  constexpr std::array<std::string_view, 6> names{"true or false", "an integer", "a fraction",
                                                  "a string",      "a list",     "a table"};
  return names[data.index()];
}

void Options::set(std::string key, OptionValue value) {
  for (auto& [known, held] : entries_) {
    if (known == key) {
      held = std::move(value);
      return;
    }
  }
  entries_.emplace_back(std::move(key), std::move(value));
}

const OptionValue* Options::find(std::string_view dotted_key) const {
  for (const auto& [key, value] : entries_) {
    if (key == dotted_key) return &value;
    if (value.table() != nullptr && dotted_key.size() > key.size() && dotted_key.starts_with(key) &&
        dotted_key[key.size()] == '.') {
      return value.table()->find(dotted_key.substr(key.size() + 1));
    }
  }
  return nullptr;
}

Result<> check_options(const Options& options, std::span<const OptionSpec> known,
                       std::span<const OptionSpec> also) {
  return Checker(known, also).check(options, "");
}

const OptionSpec& OptionReader::spec(std::string_view key) const {
  for (const auto& spec : specs_) {
    if (spec.key == key) return spec;
  }
  for (const auto& spec : also_) {
    if (spec.key == key) return spec;
  }
  assert(false && "a driver reads only keys of its own table");
  return specs_.front();
}

bool OptionReader::boolean(std::string_view key) const {
  const auto* value = options_.find(key);
  return value == nullptr ? spec(key).fallback == "true" : std::get<bool>(value->data);
}

std::int64_t OptionReader::integer(std::string_view key) const {
  if (const auto* value = options_.find(key)) return std::get<std::int64_t>(value->data);
  std::int64_t number = 0;
  const auto fallback = spec(key).fallback;
  std::from_chars(fallback.data(), fallback.data() + fallback.size(), number);
  return number;
}

std::uint64_t OptionReader::bytes(std::string_view key) const {
  if (const auto* value = options_.find(key)) return bytes_of_value(*value).value_or(0);
  return parse_bytes(spec(key).fallback).value_or(0);
}

std::uint64_t OptionReader::duration_ns(std::string_view key) const {
  if (const auto* value = options_.find(key)) return duration_of_value(*value).value_or(0);
  return parse_duration_ns(spec(key).fallback).value_or(0);
}

std::string OptionReader::text(std::string_view key) const {
  const auto* value = options_.find(key);
  return value == nullptr ? std::string(spec(key).fallback) : *value->text();
}

std::string OptionReader::path(std::string_view key) const {
  std::string name = text(key);
  if (name.empty() || name.front() == '/' || options_.directory().empty()) return name;
  return options_.directory() + "/" + name;
}

std::vector<std::string> OptionReader::words(std::string_view key) const {
  std::vector<std::string> result;
  const auto* value = options_.find(key);
  if (value == nullptr) return result;
  for (const OptionValue& word : std::get<OptionList>(value->data)) result.push_back(*word.text());
  return result;
}

std::vector<OptionReader> OptionReader::tables(std::string_view key) const {
  std::vector<OptionReader> result;
  const auto* value = options_.find(key);
  if (value == nullptr) return result;
  for (const OptionValue& element : std::get<OptionList>(value->data)) {
    result.emplace_back(*element.table(), spec(key).each->keys);
  }
  return result;
}

const Position& OptionReader::position(std::string_view key) const {
  const auto* value = options_.find(key);
  return value == nullptr ? options_.position() : value->position;
}

Result<std::uint64_t> parse_bytes(std::string_view text) {
  TRY(const auto parsed, number_and_suffix(text));
  auto [number, suffix] = parsed;
  if (suffix.empty() || suffix == "B") return scaled(text, number, 1);
  constexpr std::string_view units = "KMGTPE";
  const auto unit = units.find(suffix[0] == 'k' ? 'K' : suffix[0]);
  const std::string_view rest = suffix.substr(1);
  if (unit == std::string_view::npos || !(rest.empty() || rest == "iB" || rest == "B")) {
    return failure(Errc::invalid_argument,
                   quoted(text) + " has an unknown suffix; sizes end in K, M, G, T, P or E");
  }
  return scaled(text, number, std::uint64_t{1} << (10 * (unit + 1)));
}

Result<std::uint64_t> parse_duration_ns(std::string_view text) {
  TRY(const auto parsed, number_and_suffix(text));
  auto [number, suffix] = parsed;
  constexpr std::pair<std::string_view, std::uint64_t> units[] = {{"ns", 1},
                                                                  {"us", 1'000},
                                                                  {"ms", 1'000'000},
                                                                  {"s", 1'000'000'000},
                                                                  {"min", 60'000'000'000},
                                                                  {"h", 3'600'000'000'000}};
  for (const auto& [name, nanoseconds] : units) {
    if (suffix == name) return scaled(text, number, nanoseconds);
  }
  return failure(Errc::invalid_argument, quoted(text) + " has no unit: ms, s, min or h");
}

std::optional<std::string> nearest(std::string_view word, std::span<const std::string> candidates) {
  const auto distance = [](std::string_view a, std::string_view b) {
    std::vector<std::size_t> row(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
      std::size_t diagonal = std::exchange(row[0], i);
      for (std::size_t j = 1; j <= b.size(); ++j) {
        const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
        diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, replaced}));
      }
    }
    return row.back();
  };
  std::optional<std::string> best;
  std::size_t best_distance = word.size() / 2 + 1;  // more than half wrong is another word
  for (const auto& candidate : candidates) {
    const std::size_t d = distance(word, candidate);
    if (d < best_distance) {
      best = candidate;
      best_distance = d;
    }
  }
  return best;
}

std::string format_bytes(std::uint64_t bytes) {
  constexpr std::string_view units = "KMGTPE";
  std::string suffix;
  for (const char unit : units) {
    if (bytes == 0 || bytes % KiB != 0) break;
    bytes /= KiB;
    suffix = unit;
  }
  return std::to_string(bytes) + suffix;
}
