#include "graph/filter/fault_config.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <limits>
#include <memory>

#include "graph/base/log.h"
#include "graph/node.h"

namespace graph {
namespace {

constexpr std::string_view io_type_names = "read|write|write-zeroes|discard|flush|block-status";

constexpr std::array inject_specs{
    OptionSpec{"event", Kind::text, "", "arms the rule"},
    OptionSpec{"state", Kind::integer, "0", "only in this state; 0: in any"},
    OptionSpec{"iotype", Kind::choice, "", "hits only this; default: all but block-status",
               io_type_names},
    OptionSpec{"errno", Kind::integer, "5", "Linux's number of the error; 0: none"},
    OptionSpec{"sector", Kind::integer, "-1", "hits only requests that touch it, of 512 bytes"},
    OptionSpec{"once", Kind::boolean, "false", "hits one request, and is gone"},
    OptionSpec{"immediately", Kind::boolean, "false", "fails without letting others run first"},
};
constexpr std::array state_specs{
    OptionSpec{"event", Kind::text, "", "makes the change"},
    OptionSpec{"state", Kind::integer, "0", "only in this state; 0: in any"},
    OptionSpec{"new_state", Kind::integer, "", "the state from then on; the first one is 1"},
};

std::unexpected<Error> refuse(const Position& where, std::string why) {
  return std::unexpected(at_position(where, Error(Errc::invalid_argument, std::move(why))));
}

struct Bounds {
  std::int64_t min, max;
};
constexpr Bounds state_bounds{0, std::numeric_limits<int>::max()};
constexpr Bounds errno_bounds{0, 4095};  // of Linux
constexpr Bounds sector_bounds{-1, static_cast<std::int64_t>(size_max / fault_sector_size)};

Result<std::int64_t> number_of(const OptionReader& table, std::string_view key, Bounds bounds) {
  const std::int64_t number = table.integer(key);
  if (number >= bounds.min && number <= bounds.max) return number;
  return refuse(table.position(key), "'" + std::string(key) + "': " + std::to_string(number) +
                                         " is not in " + std::to_string(bounds.min) + " to " +
                                         std::to_string(bounds.max));
}

Result<int> state_of(const OptionReader& table, std::string_view key) {
  TRY(const std::int64_t number, number_of(table, key, state_bounds));
  return static_cast<int>(number);
}

Result<DebugEvent> event_of(const OptionReader& table) {
  if (!table.has("event")) return refuse(table.position("event"), "the key 'event' is missing");
  const std::string name = table.text("event");
  const auto found = std::ranges::find(debug_event_names, name);
  if (found != debug_event_names.end()) {
    return static_cast<DebugEvent>(found - debug_event_names.begin());
  }
  const std::vector<std::string> known(debug_event_names.begin(), debug_event_names.end());
  const auto near = nearest(name, known);
  return refuse(table.position("event"), "'event': there is no event '" + printable(name) + "'" +
                                             (near ? ", did you mean '" + *near + "'?" : ""));
}

IoTypes types_of(std::string_view name) {
  if (name == "read") return IoType::read;
  if (name == "write") return IoType::write;
  if (name == "write-zeroes") return IoType::write_zeroes;
  if (name == "discard") return IoType::discard;
  if (name == "flush") return IoType::flush;
  if (name == "block-status") return IoType::block_status;
  return IoTypes::usual();
}

Result<InjectRule> inject_rule_of(const OptionReader& table) {
  InjectRule rule;
  TRY(rule.event, event_of(table));
  TRY(rule.state, state_of(table, "state"));
  rule.types = types_of(table.text("iotype"));
  TRY(const std::int64_t error_number, number_of(table, "errno", errno_bounds));
  rule.fault.error_number = static_cast<int>(error_number);
  TRY(const std::int64_t sector, number_of(table, "sector", sector_bounds));
  if (sector >= 0) rule.sector = static_cast<std::uint64_t>(sector);
  rule.once = table.boolean("once");
  if (table.boolean("immediately")) rule.fault.when = Promptness::at_once;
  return rule;
}

Result<StateRule> state_rule_of(const OptionReader& table) {
  StateRule rule;
  TRY(rule.event, event_of(table));
  TRY(rule.state, state_of(table, "state"));
  if (!table.has("new_state")) {
    return refuse(table.position("new_state"), "the key 'new_state' is missing");
  }
  TRY(rule.new_state, state_of(table, "new_state"));
  return rule;
}

std::string_view trimmed(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

// All values of such a file are text: each becomes what its key wants, if it can. What it is
// instead is for check_options() to say.
OptionValue value_of(std::string_view text, Kind kind) {
  OptionValue value;
  value.data = std::string(text);
  if (kind == Kind::boolean) {
    if (text == "on" || text == "true" || text == "yes") value.data = true;
    if (text == "off" || text == "false" || text == "no") value.data = false;
  }
  if (kind == Kind::integer) {
    std::int64_t number = 0;
    const char* end = text.data() + text.size();
    const auto [stopped, error] = std::from_chars(text.data(), end, number);
    if (error == std::errc{} && stopped == end) value.data = number;
  }
  return value;
}

// Builds the lists that a configuration would have held.
class FileReader {
 public:
  explicit FileReader(const std::string& name) : where_{name, 0, 1} {}

  Result<> read_line(std::string_view line) {
    ++where_.line;
    const std::string_view text = trimmed(line);
    where_.column = 1 + static_cast<std::uint32_t>(text.empty() ? 0 : text.data() - line.data());
    if (text.empty() || text.front() == '#') return ok;
    return text.front() == '[' ? open_group(text) : read_value(text);
  }
  Options result() const {
    Options options(where_);
    options.set("inject-error", OptionValue{injects_, where_});
    options.set("set-state", OptionValue{states_, where_});
    return options;
  }

 private:
  // A name after the group's, [inject-error "one"], means nothing here.
  Result<> open_group(std::string_view text) {
    if (text.back() != ']') return refuse(where_, "a group ends with ']'");
    std::string_view group = text.substr(1, text.size() - 2);
    group = trimmed(group.substr(0, group.find('"')));
    const bool injects = group == "inject-error";
    if (!injects && group != "set-state") {
      return refuse(
          where_, "there is no group '" + printable(group) + "', only inject-error and set-state");
    }
    specs_ = injects ? inject_error_keys.keys : set_state_keys.keys;
    table_ = std::make_shared<Options>(where_);
    (injects ? injects_ : states_).push_back(OptionValue{table_, where_});
    return ok;
  }
  Result<> read_value(std::string_view text) {
    if (!table_) return refuse(where_, "a key before the first group");
    const std::size_t equals = text.find('=');
    if (equals == std::string_view::npos) return refuse(where_, "expected key = \"value\"");
    const std::string_view key = trimmed(text.substr(0, equals));
    const std::string_view quoted = trimmed(text.substr(equals + 1));
    if (quoted.size() < 2 || quoted.front() != '"' || quoted.find('"', 1) != quoted.size() - 1) {
      return refuse(where_, "expected key = \"value\"");
    }
    const auto spec = std::ranges::find(specs_, key, &OptionSpec::key);
    const Kind kind = spec == specs_.end() ? Kind::text : spec->kind;
    OptionValue value = value_of(quoted.substr(1, quoted.size() - 2), kind);
    value.position = where_;
    table_->set(std::string(key), std::move(value));
    return ok;
  }

  Position where_;
  std::span<const OptionSpec> specs_;  // of the group that is open
  std::shared_ptr<Options> table_;
  OptionList injects_, states_;
};

constexpr std::array file_specs{inject_error_spec, set_state_spec};

}  // namespace

const OptionTable inject_error_keys{inject_specs};
const OptionTable set_state_keys{state_specs};

Result<> add_fault_rules(FaultRules& rules, const OptionReader& options) {
  for (const OptionReader& table : options.tables("inject-error")) {
    TRY(const InjectRule rule, inject_rule_of(table));
    rules.add(rule);
  }
  for (const OptionReader& table : options.tables("set-state")) {
    TRY(const StateRule rule, state_rule_of(table));
    rules.add(rule);
  }
  return ok;
}

Result<> add_fault_rules_of_file(FaultRules& rules, std::string_view text,
                                 const std::string& name) {
  FileReader reader(name);
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    if (auto read = reader.read_line(text.substr(0, end)); !read) return read;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  const Options options = reader.result();
  if (auto known = check_options(options, file_specs); !known) return known;
  return add_fault_rules(rules, OptionReader(options, file_specs));
}

}  // namespace graph
