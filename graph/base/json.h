// json.h - JSON as a tree of values, its text, and back. nlohmann-json stays behind it.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "graph/base/error.h"

class Json;
// In the order in which they were set, or read.
using JsonObject = std::vector<std::pair<std::string, Json>>;
using JsonArray = std::vector<Json>;

class Json {
 public:
  Json() = default;  // null
  Json(std::same_as<bool> auto value) : data_(value) {}
  Json(std::signed_integral auto value) : data_(std::int64_t{value}) {}
  Json(std::unsigned_integral auto value)
    requires(!std::same_as<decltype(value), bool>)
  {
    if (std::in_range<std::int64_t>(value)) {
      data_ = static_cast<std::int64_t>(value);
    } else {
      data_ = std::uint64_t{value};
    }
  }
  Json(double value) : data_(value) {}
  Json(std::string value) : data_(std::move(value)) {}
  Json(std::string_view value) : data_(std::string(value)) {}
  Json(const char* value) : data_(std::string(value)) {}
  Json(JsonArray values) : data_(std::move(values)) {}
  Json(JsonObject members) : data_(std::move(members)) {}

  bool is_null() const { return std::holds_alternative<std::monostate>(data_); }
  // Null where it is something else.
  const bool* boolean() const { return std::get_if<bool>(&data_); }
  const std::string* string() const { return std::get_if<std::string>(&data_); }
  const double* fraction() const { return std::get_if<double>(&data_); }
  const std::int64_t* integer() const { return std::get_if<std::int64_t>(&data_); }
  // What is larger than an integer can be.
  const std::uint64_t* large_integer() const { return std::get_if<std::uint64_t>(&data_); }
  const JsonArray* array() const { return std::get_if<JsonArray>(&data_); }
  const JsonObject* object() const { return std::get_if<JsonObject>(&data_); }
  // Null where there is no such member, or this is no object.
  const Json* find(std::string_view key) const;

  // Requires: this is null or an object; no member has that key.
  void set(std::string key, Json value);
  // The same, without looking for the key.
  void append(std::string key, Json value);
  // Requires: this is null or an array.
  void add(Json value);

  bool operator==(const Json&) const = default;

 private:
  std::variant<std::monostate, bool, std::int64_t, std::uint64_t, double, std::string, JsonArray,
               JsonObject>
      data_;
};

enum class JsonStyle : std::uint8_t {
  spaced,   // {"a": 1, "b": [2, 3]}
  compact,  // {"a":1,"b":[2,3]}
};
// One line. Invalid UTF-8 becomes U+FFFD.
std::string to_text(const Json& value, JsonStyle style = JsonStyle::spaced);

struct JsonLimits {
  std::size_t nesting = 64;        // arrays and objects within each other
  std::size_t elements = 100'000;  // of all arrays and objects together
};
// Errors: invalid_argument with what is wrong (no JSON, no UTF-8, a key twice, a limit).
Result<Json> parse_json(std::string_view text, JsonLimits limits = {});
