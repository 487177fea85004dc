// json.h - what a command says to programs: a tree of values, printed as JSON.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace app {

class Json {
 public:
  Json(bool value) : data_(value) {}
  Json(std::uint64_t value) : data_(value) {}
  Json(std::uint32_t value) : data_(std::uint64_t{value}) {}
  Json(std::string value) : data_(std::move(value)) {}
  Json(const char* value) : data_(std::string(value)) {}
  static Json object() { return Json(Members()); }
  static Json array() { return Json(Elements()); }

  // Requires: it is an object. Keys keep their order.
  void set(std::string key, Json value);
  // Requires: it is an array.
  void add(Json value);
  // In several lines, without one at the end. What is no UTF-8 is escaped as printable() does.
  std::string text(std::size_t indent = 0) const;

 private:
  using Members = std::vector<std::pair<std::string, Json>>;
  using Elements = std::vector<Json>;
  explicit Json(Members members) : data_(std::move(members)) {}
  explicit Json(Elements elements) : data_(std::move(elements)) {}
  std::variant<bool, std::uint64_t, std::string, Members, Elements> data_;
};

}  // namespace app
