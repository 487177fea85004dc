#include "src/toml.h"

#include <toml++/toml.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "graph/base/log.h"

namespace app {
namespace {

constexpr std::size_t text_size_max = 16 * MiB;

class Converter {
 public:
  explicit Converter(const std::string& file)
      : file_(file), folder_(std::filesystem::path(file).parent_path().string()) {}

  Result<Options> table(const toml::table& from) const {
    Options options(position(from.source()));
    options.set_directory(folder_);
    // toml++ sorts its keys; people mean the order in which they wrote them
    std::vector<std::pair<const toml::key*, const toml::node*>> entries;
    for (const auto& [key, node] : from) entries.emplace_back(&key, &node);
    std::ranges::sort(entries, {}, [](const auto& entry) {
      const auto& begin = entry.first->source().begin;
      return std::pair(begin.line, begin.column);
    });
    for (const auto& [key, node] : entries) {
      TRY(OptionValue value, this->value(*node, key->source()));
      options.set(std::string(key->str()), std::move(value));
    }
    return options;
  }

 private:
  Position position(const toml::source_region& region) const {
    return {file_, region.begin.line, region.begin.column};
  }

  // `where`: of the key, or of the element in a list.
  Result<OptionValue> value(const toml::node& node, const toml::source_region& where) const {
    OptionValue result;
    result.position = position(where);
    if (const auto* flag = node.as_boolean()) {
      result.data = flag->get();
    } else if (const auto* number = node.as_integer()) {
      result.data = number->get();
    } else if (const auto* fraction = node.as_floating_point()) {
      result.data = fraction->get();
    } else if (const auto* text = node.as_string()) {
      result.data = text->get();
    } else if (const auto* inner = node.as_table()) {
      TRY(Options options, table(*inner));
      result.data = std::make_shared<Options>(std::move(options));
    } else if (const auto* array = node.as_array()) {
      OptionList list;
      for (const auto& element : *array) {
        TRY(OptionValue item, value(element, element.source()));
        list.push_back(std::move(item));
      }
      result.data = std::move(list);
    } else {
      return std::unexpected(at_position(
          result.position, Error(Errc::invalid_argument, "dates and times mean nothing here")));
    }
    return result;
  }

  const std::string& file_;
  const std::string folder_;
};

}  // namespace

Result<Options> parse_toml(std::string_view text, const std::string& file) {
  try {
    const toml::table parsed = toml::parse(text, file);
    return Converter(file).table(parsed);
  } catch (const toml::parse_error& problem) {
    const auto& begin = problem.source().begin;
    const Position where{file, begin.line, begin.column};
    return std::unexpected(
        at_position(where, Error(Errc::invalid_argument, printable(problem.description(), 512))));
  }
}

Result<Options> load_toml(const std::string& path) {
  const auto close = [](std::FILE* file) { std::fclose(file); };
  const std::unique_ptr<std::FILE, decltype(close)> file(std::fopen(path.c_str(), "re"), close);
  if (!file) return std::unexpected(error_from_errno(errno, path));
  std::string text;
  std::array<char, 64 * KiB> piece;
  while (const std::size_t n = std::fread(piece.data(), 1, piece.size(), file.get())) {
    text.append(piece.data(), n);
    if (text.size() > text_size_max) {
      return failure(Errc::invalid_argument, path + ": too large for a configuration");
    }
  }
  if (std::ferror(file.get()) != 0) return std::unexpected(error_from_errno(errno, path));
  return parse_toml(text, path);
}

}  // namespace app
