#include "src/create.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "formats/qcow2/create.h"
#include "src/one_file.h"
#include "src/preallocate.h"
#include "src/progress.h"

namespace app {
namespace {

using formats::qcow2::CreateOptions;
using formats::qcow2::Preallocation;
using Words = std::vector<std::pair<std::string, std::string>>;

std::unexpected<Error> wrong(std::string what) {
  return failure(Errc::invalid_argument, std::move(what));
}

// A name in an image counts from the image's folder.
std::string beside(const std::string& image, const std::string& name) {
  return (std::filesystem::path(image).parent_path() / name).string();
}

// True when it made the file, false when it was there.
Task<bool> make_file(Home& home, const std::string& name, const CreateCommand& command) {
  OpenFlags flags;
  flags.access = FileAccess::read_write;
  flags.creation = Creation::exclusive;
  auto made = co_await home.engine.open(name, flags);
  if (made) {
    (void)co_await (*made)->close();  // nothing was written
    co_return true;
  }
  if (made.error().number != EEXIST) {
    co_return std::unexpected(error_from_errno(made.error().number, name));
  }
  if (!command.force) {
    co_return failure(Errc::busy, name + " is there already: add --force to lose what it holds");
  }
  co_return false;
}

struct RawOptions {
  std::uint64_t size = 0;  // bytes
  Preallocation preallocation = Preallocation::off;
};

Result<RawOptions> parse_raw_options(const Words& words) {
  RawOptions options;
  for (const auto& [key, value] : words) {
    if (key == "size") {
      TRY(options.size, parse_bytes(value));
    } else if (key != "preallocation") {
      return wrong("raw has no option '" + key + "', only 'size' and 'preallocation'");
    } else if (value == "falloc" || value == "full") {
      options.preallocation = value == "full" ? Preallocation::full : Preallocation::falloc;
    } else if (value != "off") {
      return wrong("Invalid parameter '" + value +
                   "' for 'preallocation', it is one of off|falloc|full");
    }
  }
  return options;
}

Task<> create_raw(formats::qcow2::Medium& file, RawOptions options,
                  const formats::qcow2::Progress& progress) {
  if (file.can_grow()) {
    CO_CHECK(co_await file.resize(0));
    CO_CHECK(co_await file.resize(options.size));
  } else if (file.size() < options.size) {
    co_return failure(Errc::no_space,
                      fmt::format("the device has {} bytes, not {}", file.size(), options.size));
  }
  if (options.preallocation == Preallocation::off) co_return ok;
  const Range all{0, options.size};
  CO_CHECK(co_await preallocate(file, all, options.preallocation, progress));
  co_return co_await file.flush();
}

// Everything that was opened is closed again, whatever happens.
Task<> create_qcow2(Home& home, Drivers drivers, const CreateCommand& command,
                    const CreateOptions& options, OneFile& file,
                    const formats::qcow2::Progress& progress) {
  if (options.data_file.empty()) {
    co_return co_await create(file.medium(), nullptr, options, progress);
  }
  const std::string name = beside(command.image, options.data_file);
  CO_TRY(const bool is_new, co_await make_file(home, name, command));
  OneFile data(home, drivers);
  Result<> done = co_await data.open(name, FileUse::change);
  if (done) {
    done = co_await create(file.medium(), &data.medium(), options, progress);
    Result<> closed = co_await data.close();
    if (done) done = closed;
  }
  if (!done && is_new) (void)co_await home.engine.remove(name);
  co_return done;
}

Task<> fill(Home& home, Drivers drivers, const CreateCommand& command, const Words& words) {
  ProgressLine line;
  const formats::qcow2::Progress progress = [&line](std::uint64_t done, std::uint64_t total) {
    line.show(done, total);
  };
  OneFile file(home, drivers);
  CO_CHECK(co_await file.open(command.image, FileUse::change));
  Result<> done = ok;
  if (command.format == "raw") {
    const RawOptions options = parse_raw_options(words).value();
    done = co_await create_raw(file.medium(), options, progress);
  } else {
    const CreateOptions options = formats::qcow2::parse_create_options(words).value();
    done = co_await create_qcow2(home, drivers, command, options, file, progress);
  }
  Result<> closed = co_await file.close();
  co_return done ? closed : done;
}

// Everything that can be wrong without a look at a file; the size in `words`.
Result<> check_words(const CreateCommand& command, const Words& words) {
  const bool has_size =
      std::ranges::any_of(words, [](const auto& each) { return each.first == "size"; });
  if (!has_size) return wrong("Image creation needs a size parameter");
  if (command.format == "raw") {
    CHECK(parse_raw_options(words));
    return ok;
  }
  TRY(const CreateOptions options, formats::qcow2::parse_create_options(words));
  if (options.backing_file.empty()) return ok;
  const std::string backing = beside(command.image, options.backing_file);
  std::error_code error;
  if (!std::filesystem::exists(backing, error)) {
    return wrong("the backing file " + backing + " is not there");
  }
  return ok;
}

// A file that was made for it is gone again when it fails.
Task<> make(Home& home, Drivers drivers, const CreateCommand& command, const Words& words) {
  CO_CHECK(check_words(command, words));
  CO_TRY(const bool is_new, co_await make_file(home, command.image, command));
  Result<> done = co_await fill(home, drivers, command, words);
  if (!done && is_new) (void)co_await home.engine.remove(command.image);
  co_return done;
}

}  // namespace

std::vector<std::string> creatable_formats() { return {"qcow2", "raw"}; }

Result<std::vector<std::pair<std::string, std::string>>> parse_option_words(std::string_view text) {
  Words words;
  std::string word;
  const auto take = [&]() -> Result<> {
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos || equals == 0) {
      return wrong("an option is KEY=VALUE, not '" + printable(word) + "'");
    }
    words.emplace_back(word.substr(0, equals), word.substr(equals + 1));
    word.clear();
    return ok;
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != ',') {
      word += text[i];
    } else if (i + 1 < text.size() && text[i + 1] == ',') {
      word += text[++i];
    } else {
      CHECK(take());
    }
  }
  CHECK(take());
  return words;
}

Task<int> create_image(Worker& worker, const CreateCommand& command, Drivers drivers) {
  Words words;
  for (const std::string& text : command.options) {
    CO_TRY(const Words more, parse_option_words(text));
    words.insert(words.end(), more.begin(), more.end());
  }
  if (!command.size.empty()) words.emplace_back("size", command.size);
  CO_CHECK(co_await make(worker.home(), drivers, command, words));
  co_return EXIT_SUCCESS;
}

Task<> make_missing_image(Home& home, Drivers drivers, const NewImage& image) {
  std::error_code error;
  if (std::filesystem::exists(image.filename, error)) co_return ok;
  CreateCommand command;
  command.image = image.filename;
  command.format = "qcow2";
  Result<> done = co_await make(home, drivers, command, image.words);
  if (!done) {
    co_return std::unexpected(at_position(image.position, std::move(done).error()));
  }
  co_return ok;
}

}  // namespace app
