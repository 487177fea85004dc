// config.h - what a daemon serves, as plain structs, read from a TOML file and checked as far as
// that is possible before anything is opened. The tables of keys are the only place that names
// them.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "graph/base/engines.h"
#include "graph/base/log.h"
#include "graph/base/options.h"
#include "graph/driver.h"
#include "src/limits.h"
#include "src/listen_config.h"
#include "src/new_image.h"

namespace app {

using Drivers = std::span<const graph::Driver* const>;

struct NodeConfig {
  std::string name;
  std::shared_ptr<const Options> options;        // for its driver
  std::optional<NewImage> image = std::nullopt;  // to be made first, if it is not there
};

struct ExportConfig {
  std::string name;  // "" is the default export
  std::string node;
  bool writable = false;
  std::string description;
  std::uint64_t offset = 0;           // bytes of the node
  std::optional<std::uint64_t> size;  // bytes; none: up to the end of the node
  bool write_through = false;
  std::string snapshot;    // "": the active disk; else an internal snapshot, by id or else by name
  bool snapshots = false;  // each of the node is an export, too: NAME@SNAPSHOT
  Position position;       // of the table
  Position window_position;  // of its size, or else its offset
};

struct Config {
  // Empty: what systemd has opened, or else default_listen.
  std::vector<Listen> listen;
  std::optional<Listen> control;  // the Unix socket for `gantry ctl` and other QMP clients
  std::uint32_t workers = 0;      // 0: one for each processor
  ServiceLimits limits;
  EngineKind io_engine = EngineKind::automatic;
  LogLevel log_level = LogLevel::info;
  LogFormat log_format = LogFormat::text;
  std::vector<NodeConfig> nodes;  // children first
  std::vector<ExportConfig> exports;
  Position position;  // of the file; without a name where there is none
  std::shared_ptr<const Options> tree = std::make_shared<const Options>();  // all of the above
};

// The keys of [server] and of [exports.NAME]; those of [nodes.NAME] are the driver's and
// common_node_options().
std::span<const OptionSpec> server_options();
std::span<const OptionSpec> export_options();

// Errors: invalid_argument with file, line and column; what reading the file says.
Result<Config> load_config(const std::string& path, Drivers drivers);
// The same from a tree.
Result<Config> read_config(const Options& root, Drivers drivers);

// Errors: invalid_argument when `text` can't stand on the wire as the name or the description of an
// export.
Result<> check_wire_text(std::string_view what, std::string_view text);

}  // namespace app
