#include "src/include.h"

#include <glob.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <vector>

#include "graph/base/log.h"
#include "src/toml.h"

namespace app {
namespace {

constexpr std::size_t files_max = 1000;
constexpr std::size_t depth_max = 16;

std::unexpected<Error> refuse(const Position& where, std::string why) {
  return std::unexpected(at_position(where, Error(Errc::invalid_argument, std::move(why))));
}

// "a.toml:3:1", for the middle of a sentence.
std::string place(const Position& where) {
  const std::string prefix = where.prefix();
  return prefix.substr(0, prefix.rfind(": "));
}

// A folder's name as a pattern that matches it alone.
std::string escaped(const std::string& folder) {
  std::string pattern;
  for (const char c : folder) {
    if (std::string_view("*?[]\\").contains(c)) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

bool has_wildcard(std::string_view pattern) {
  return pattern.find_first_of("*?[") != std::string_view::npos;
}

// What matches `pattern`, sorted.
Result<std::vector<std::string>> matches(const OptionValue& entry, const std::string& folder) {
  const std::string& text = *entry.text();
  if (text.empty() || text.contains('\0')) {
    return refuse(entry.position, "'include': '" + printable(text) + "' is no file name");
  }
  const bool relative = !text.starts_with('/') && !folder.empty();
  const std::string pattern = relative ? escaped(folder) + "/" + text : text;
  glob_t found{};
  const auto is_serious = [](const char*, int number) {
    return static_cast<int>(number != ENOENT && number != ENOTDIR);  // else nothing matches
  };
  const int status = ::glob(pattern.c_str(), 0, is_serious, &found);
  std::vector<std::string> paths(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  ::globfree(&found);
  if (status == 0 || (status == GLOB_NOMATCH && has_wildcard(text))) return paths;
  if (status == GLOB_NOMATCH) {
    return refuse(entry.position, "'include': there is no file '" + printable(text) + "'");
  }
  return refuse(entry.position, "'include': '" + printable(text) + "': a folder can't be read");
}

Result<OptionList> included_by(const Options& root) {
  const OptionValue* value = root.find("include");
  if (value == nullptr) return OptionList{};
  OptionList entries;
  if (const auto* list = std::get_if<OptionList>(&value->data)) {
    entries = *list;
  } else {
    entries.push_back(*value);
  }
  for (const OptionValue& entry : entries) {
    if (entry.text() != nullptr) continue;
    return refuse(entry.position, "'include': expected a file name or a list of them, not " +
                                      std::string(entry.kind_name()));
  }
  return entries;
}

class Loader {
 public:
  Result<Options> load(const std::string& path) {
    if (auto added = add(path, {}); !added) return std::unexpected(std::move(added).error());
    return std::move(all_);
  }

 private:
  struct File {
    std::string path;       // as it was written
    std::string canonical;  // to know it again
    Position included_at;
  };

  // `where`: of what names the file; of no file for the first one.
  Result<> add(const std::string& path, const Position& where) {
    std::error_code ignored;  // then loading it says why
    const auto canonical = std::filesystem::weakly_canonical(path, ignored).string();
    if (auto fresh = check_fresh(path, canonical, where); !fresh) return fresh;
    auto loaded = load_toml(path);
    if (!loaded) {
      Error error = std::move(loaded).error();
      // a mistake in the file says where it is, a file that can't be read doesn't
      const bool placed = error.message.starts_with(path + ":") &&
                          error.message.size() > path.size() + 1 &&
                          error.message[path.size() + 1] != ' ';
      return std::unexpected(placed ? std::move(error) : at_position(where, std::move(error)));
    }
    seen_.push_back({path, canonical, where});
    open_.push_back(seen_.back());
    if (seen_.size() == 1) {
      all_ = Options(loaded->position());
      all_.set_directory(loaded->directory());
    }
    if (auto merged = merge(*loaded); !merged) return merged;
    TRY(const OptionList entries, included_by(*loaded));
    for (const OptionValue& entry : entries) {
      TRY(const auto paths, matches(entry, loaded->directory()));
      for (const std::string& found : paths) {
        if (auto added = add(found, entry.position); !added) return added;
      }
    }
    open_.pop_back();
    return ok;
  }

  Result<> check_fresh(const std::string& path, const std::string& canonical,
                       const Position& where) const {
    const auto is_it = [&](const File& file) { return file.canonical == canonical; };
    const auto open = std::ranges::find_if(open_, is_it);
    if (open != open_.end()) {
      std::string cycle;
      for (auto at = open; at != open_.end(); ++at) {
        cycle += printable(at->path);
        cycle += " -> ";
      }
      return refuse(where, "'include': the files form a cycle: " + cycle + printable(path));
    }
    const auto seen = std::ranges::find_if(seen_, is_it);
    if (seen != seen_.end()) {
      return refuse(where, "'include': " + printable(path) + " is included twice, first at " +
                               place(seen->included_at));
    }
    if (open_.size() >= depth_max) {
      return refuse(
          where, "'include': more than " + std::to_string(depth_max) + " files include each other");
    }
    if (seen_.size() >= files_max) {
      return refuse(where, "'include': more than " + std::to_string(files_max) + " files");
    }
    return ok;
  }

  Result<> merge(const Options& from) {
    for (const auto& [section, value] : from.entries()) {
      if (section == "include") continue;
      const OptionValue* known = all_.find(section);
      if (known == nullptr) {
        all_.set(section, value);
        continue;
      }
      if (known->table() == nullptr || value.table() == nullptr) {
        return twice(section, *known, value);
      }
      auto both = std::make_shared<Options>(*known->table());
      for (const auto& [name, item] : value.table()->entries()) {
        // not find(): a name may have dots
        const auto earlier =
            std::ranges::find(both->entries(), name, [](const auto& entry) { return entry.first; });
        if (earlier != both->entries().end()) {
          std::string both_times = section;
          both_times += "." + name;
          return twice(both_times, earlier->second, item);
        }
        both->set(name, item);
      }
      all_.set(section, OptionValue{std::move(both), known->position});
    }
    return ok;
  }

  static Result<> twice(const std::string& name, const OptionValue& first,
                        const OptionValue& second) {
    return refuse(second.position,
                  "'" + printable(name) + "' is defined twice, first at " + place(first.position));
  }

  Options all_;
  std::vector<File> seen_;
  std::vector<File> open_;  // those whose includes are being followed
};

}  // namespace

Result<Options> load_with_includes(const std::string& path) { return Loader().load(path); }

}  // namespace app
