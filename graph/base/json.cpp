#include "graph/base/json.h"

#include <algorithm>
#include <cassert>
#include <nlohmann/json.hpp>
#include <optional>

#include "graph/base/log.h"

namespace {

using Library = nlohmann::json;

constexpr std::size_t complaint_max = 200;

std::string text_of(const Library& scalar) {
  constexpr int one_line = -1;
  return scalar.dump(one_line, ' ', false, Library::error_handler_t::replace);
}

// Two of the same key: the first of them in the order of keys.
bool has_duplicates(const JsonObject& members) {
  std::vector<std::string_view> keys;
  keys.reserve(members.size());
  for (const auto& [key, value] : members) keys.emplace_back(key);
  std::ranges::sort(keys);
  return std::ranges::adjacent_find(keys) != keys.end();
}

// Puts together what the parser finds. A function that returns false ends the parsing.
class Builder final : public nlohmann::json_sax<Library> {
 public:
  explicit Builder(JsonLimits limits) : limits_(limits) {}

  Result<Json> result() && {
    if (complaint_.empty()) return std::move(*whole_);
    return failure(Errc::invalid_argument, printable(complaint_, complaint_max));
  }

  bool null() override { return put(Json()); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t&) override { return put(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return complain("unexpected binary data"); }
  bool start_object(std::size_t) override { return open(JsonObject()); }
  bool start_array(std::size_t) override { return open(JsonArray()); }
  bool key(string_t& name) override {
    keys_.push_back(std::move(name));
    return true;
  }
  bool end_object() override {
    if (has_duplicates(*open_.back().object())) return complain("duplicate key");
    return close();
  }
  bool end_array() override { return close(); }
  bool parse_error(std::size_t, const std::string&, const Library::exception& problem) override {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error while ..."
    std::string_view what = problem.what();
    what.remove_prefix(std::min(what.find("] "), what.size() - 2) + 2);
    if (what.starts_with("parse error")) what.remove_prefix(what.find(": ") + 2);
    return complain(std::string(what));
  }

 private:
  bool complain(std::string what) {
    complaint_ = std::move(what);
    return false;
  }
  bool open(Json container) {
    if (open_.size() == limits_.nesting) return complain("nested too deep");
    open_.push_back(std::move(container));
    return true;
  }
  bool close() {
    Json done = std::move(open_.back());
    open_.pop_back();
    return put(std::move(done));
  }
  bool put(Json value) {
    if (open_.empty()) {
      whole_ = std::move(value);
      return true;
    }
    if (++elements_ > limits_.elements) return complain("too many elements");
    if (open_.back().array() != nullptr) {
      open_.back().add(std::move(value));
    } else {
      open_.back().append(std::move(keys_.back()), std::move(value));
      keys_.pop_back();
    }
    return true;
  }

  const JsonLimits limits_;
  std::vector<Json> open_;
  std::vector<std::string> keys_;  // of members whose value is not there yet
  std::size_t elements_ = 0;
  std::optional<Json> whole_;
  std::string complaint_;
};

void append(std::string& text, const Json& value, JsonStyle style) {
  const std::string_view comma = style == JsonStyle::spaced ? ", " : ",";
  const std::string_view colon = style == JsonStyle::spaced ? ": " : ":";
  if (const JsonArray* array = value.array()) {
    text += '[';
    for (std::size_t i = 0; i < array->size(); ++i) {
      if (i > 0) text += comma;
      append(text, (*array)[i], style);
    }
    text += ']';
  } else if (const JsonObject* object = value.object()) {
    text += '{';
    for (std::size_t i = 0; i < object->size(); ++i) {
      if (i > 0) text += comma;
      text += text_of((*object)[i].first);
      text += colon;
      append(text, (*object)[i].second, style);
    }
    text += '}';
  } else if (const std::string* string = value.string()) {
    text += text_of(*string);
  } else if (const bool* boolean = value.boolean()) {
    text += *boolean ? "true" : "false";
  } else if (const std::int64_t* integer = value.integer()) {
    text += std::to_string(*integer);
  } else if (const std::uint64_t* large = value.large_integer()) {
    text += std::to_string(*large);
  } else if (const double* fraction = value.fraction()) {
    text += text_of(*fraction);
  } else {
    text += "null";
  }
}

}  // namespace

const Json* Json::find(std::string_view key) const {
  const JsonObject* members = object();
  if (members == nullptr) return nullptr;
  const auto found = std::ranges::find(*members, key, &JsonObject::value_type::first);
  return found == members->end() ? nullptr : &found->second;
}

void Json::set(std::string key, Json value) {
  assert(find(key) == nullptr);
  append(std::move(key), std::move(value));
}

void Json::append(std::string key, Json value) {
  if (is_null()) data_ = JsonObject();
  std::get<JsonObject>(data_).emplace_back(std::move(key), std::move(value));
}

void Json::add(Json value) {
  if (is_null()) data_ = JsonArray();
  std::get<JsonArray>(data_).push_back(std::move(value));
}

std::string to_text(const Json& value, JsonStyle style) {
  std::string text;
  append(text, value, style);
  return text;
}

Result<Json> parse_json(std::string_view text, JsonLimits limits) {
  Builder builder(limits);
  (void)Library::sax_parse(text.begin(), text.end(), &builder);
  return std::move(builder).result();
}
