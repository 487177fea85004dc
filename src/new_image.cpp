#include "src/new_image.h"

#include <array>

#include "formats/qcow2/create_options.h"

namespace app {
namespace {

constexpr std::string_view create_key = "create";
constexpr std::array filename_key{OptionSpec{"filename", Kind::path, "", "the file"}};

std::unexpected<Error> refuse(const Position& where, std::string what) {
  return std::unexpected(at_position(where, Error(Errc::invalid_argument, std::move(what))));
}

bool has_driver(const Options& options, std::string_view driver) {
  const OptionValue* value = options.find("driver");
  return value != nullptr && value->text() != nullptr && *value->text() == driver;
}

// As `gantry create -o` takes it; nothing for what is no single value.
std::optional<std::string> word_of(const OptionValue& value) {
  if (const bool* flag = std::get_if<bool>(&value.data)) return *flag ? "on" : "off";
  if (const auto* number = std::get_if<std::int64_t>(&value.data)) return std::to_string(*number);
  if (value.text() != nullptr) return *value.text();
  return std::nullopt;
}

// The name of the file that the key `file` leads to; nothing when check_node() will say why.
Result<std::optional<std::string>> filename_of(const Options& options, const Position& where,
                                               const FindNode& find) {
  const OptionValue* value = options.find("file");
  if (value == nullptr) return std::nullopt;
  const Options* file = value->table() != nullptr  ? value->table()
                        : value->text() != nullptr ? find(*value->text())
                                                   : nullptr;
  if (file == nullptr) return std::nullopt;
  if (!has_driver(*file, "file")) {
    return refuse(where,
                  "'create' makes files only: the key 'file' has to be a node with the "
                  "driver 'file'");
  }
  const OptionValue* name = file->find("filename");
  if (name == nullptr || name->text() == nullptr) return std::nullopt;
  return OptionReader(*file, filename_key).path("filename");
}

}  // namespace

Result<NodeWithImage> split_off_image(std::shared_ptr<const Options> options,
                                      const FindNode& find) {
  NodeWithImage result;
  result.options = options;
  const OptionValue* create = options->find(create_key);
  if (create == nullptr || !has_driver(*options, "qcow2")) return result;
  if (create->table() == nullptr) {
    return refuse(create->position,
                  "'create': expected a table, not " + std::string(create->kind_name()));
  }
  NewImage image;
  image.position = create->position;
  bool has_size = false;
  for (const auto& [key, value] : create->table()->entries()) {
    const std::optional<std::string> word = word_of(value);
    if (!word) {
      return refuse(value.position, "'create." + key + "': expected a single value, not " +
                                        std::string(value.kind_name()));
    }
    has_size = has_size || key == "size";
    image.words.emplace_back(key, *word);
  }
  if (!has_size) return refuse(create->position, "'create': the key 'size' is missing");
  if (auto parsed = formats::qcow2::parse_create_options(image.words); !parsed) {
    return std::unexpected(at_position(create->position, std::move(parsed).error()));
  }
  TRY(const std::optional<std::string> filename, filename_of(*options, create->position, find));

  auto rest = std::make_shared<Options>(options->position());
  rest->set_directory(options->directory());
  for (const auto& [key, value] : options->entries()) {
    if (key != create_key) rest->set(key, value);
  }
  result.options = std::move(rest);
  if (filename) {
    image.filename = *filename;
    result.image = std::move(image);
  }
  return result;
}

}  // namespace app
