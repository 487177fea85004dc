// listen_config.h - the listeners of a configuration: addresses, and tables that say more.
#pragma once

#include <sys/types.h>

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "graph/base/options.h"
#include "src/address.h"
#include "src/allow_list.h"

namespace app {

// A number that the system goes by, and how it was written.
template <class Id>
struct NamedId {
  Id id{};
  std::string name;
  bool operator==(const NamedId&) const = default;
};

// Who may reach a Unix socket through its file. What is absent is as the process makes it.
struct SocketFile {
  std::optional<mode_t> mode;
  std::optional<NamedId<uid_t>> owner;
  std::optional<NamedId<gid_t>> group;
  bool operator==(const SocketFile&) const = default;
};

struct Listen {
  Address address;
  Position position;  // for messages
  SocketFile file = {};
  std::optional<AllowList> allow = std::nullopt;  // none: everybody
};

// Where a server without `listen` listens.
inline constexpr std::string_view default_listen = "tcp:127.0.0.1:10809";

// The keys of a table in `listen`.
std::span<const OptionSpec> listener_options();

// The value of `listen`: an address, a table, or a list of them. Relative paths start from the
// folder of the file in which they stand.
// Errors: invalid_argument with the position.
Result<std::vector<Listen>> read_listen(const OptionValue& value);

// The value of `control`, a string: a Unix socket that only its owner reaches. The same for paths
// and errors.
Result<Listen> read_control(const OptionValue& value);

}  // namespace app
