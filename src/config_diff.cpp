#include "src/config_diff.h"

#include <algorithm>
#include <set>
#include <variant>

#include "graph/base/log.h"

namespace app {
namespace {

bool same(const OptionValue& a, const OptionValue& b);

// A value that is neither a list nor a table.
std::variant<bool, std::int64_t, double, std::string> plain(const OptionValue& value) {
  if (const auto* flag = std::get_if<bool>(&value.data)) return *flag;
  if (const auto* number = std::get_if<std::int64_t>(&value.data)) return *number;
  if (const auto* fraction = std::get_if<double>(&value.data)) return *fraction;
  const std::string* text = value.text();
  return text == nullptr ? std::string() : *text;
}

const OptionValue* value_in(const Options& table, const std::string& key) {
  // not find(): a name may have dots
  for (const auto& [name, value] : table.entries()) {
    if (name == key) return &value;
  }
  return nullptr;
}

// Those that only one of them has, or that have another value, whatever the order.
std::vector<std::string> differing_keys(const Options& a, const Options& b) {
  std::set<std::string> keys;
  for (const auto& [key, value] : a.entries()) keys.insert(key);
  for (const auto& [key, value] : b.entries()) keys.insert(key);
  std::vector<std::string> result;
  for (const std::string& key : keys) {
    const OptionValue* in_a = value_in(a, key);
    const OptionValue* in_b = value_in(b, key);
    if (in_a == nullptr || in_b == nullptr || !same(*in_a, *in_b)) result.push_back(key);
  }
  return result;
}

// Apart from the positions.
bool same(const OptionValue& a, const OptionValue& b) {
  if (a.table() != nullptr && b.table() != nullptr) {
    return differing_keys(*a.table(), *b.table()).empty();
  }
  const auto* list = std::get_if<OptionList>(&a.data);
  const auto* other = std::get_if<OptionList>(&b.data);
  if (list != nullptr && other != nullptr) {
    return std::ranges::equal(
        *list, *other, [](const OptionValue& x, const OptionValue& y) { return same(x, y); });
  }
  return a.data.index() == b.data.index() && a.table() == nullptr && list == nullptr &&
         plain(a) == plain(b);
}

// "tcp:h:1" may have become { tcp = "h:1", allow = [...] }.
bool same_listeners(const Config& a, const Config& b) {
  return std::ranges::equal(a.listen, b.listen, [](const Listen& x, const Listen& y) {
    return x.address == y.address && x.file == y.file;
  });
}

const Options& section(const Config& config, const std::string& name) {
  static const Options none;
  const OptionValue* value = config.tree->find(name);
  return value == nullptr || value->table() == nullptr ? none : *value->table();
}

}  // namespace

std::vector<std::string> differences(const Config& running, const Config& fresh) {
  std::vector<std::string> result;
  for (const std::string& key :
       differing_keys(section(running, "server"), section(fresh, "server"))) {
    if (key != "log-level" && key != "listen") result.push_back(printable(key));
  }
  if (!same_listeners(running, fresh)) result.emplace_back("listen");
  for (const std::string name : {"nodes", "exports"}) {
    for (const std::string& key : differing_keys(section(running, name), section(fresh, name))) {
      result.push_back(name + "." + printable(key));
    }
  }
  return result;
}

}  // namespace app
