// fault_config.h - fault rules as people write them: tables of a configuration, or a file in the
// syntax of QEMU's configuration files. Keys and meaning are those of QEMU's blkdebug.
#pragma once

#include <string>
#include <string_view>

#include "graph/base/options.h"
#include "graph/filter/fault_rules.h"

namespace graph {

extern const OptionTable inject_error_keys;
extern const OptionTable set_state_keys;
inline constexpr OptionSpec inject_error_spec{
    "inject-error", Kind::tables, "", "requests that fail, each a table:", {}, &inject_error_keys};
inline constexpr OptionSpec set_state_spec{
    "set-state", Kind::tables, "", "changes of the state, each a table:", {}, &set_state_keys};

// Adds the rules in the lists 'inject-error' and 'set-state' of checked options.
// Errors: invalid_argument with the position.
Result<> add_fault_rules(FaultRules& rules, const OptionReader& options);

// The same from a file: groups [inject-error] and [set-state], lines `key = "value"`, comments
// after '#'. `name` is for messages. Errors: invalid_argument, "NAME:LINE:COL: what".
Result<> add_fault_rules_of_file(FaultRules& rules, std::string_view text, const std::string& name);

}  // namespace graph
