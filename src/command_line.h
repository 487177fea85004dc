// command_line.h - what was typed, as a plain struct. CLI11 stays behind it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "formats/qcow2/check.h"
#include "formats/qcow2/create_options.h"
#include "graph/base/json.h"
#include "src/config.h"

namespace app {

// All has been said already: help, the version, or what is wrong with the line.
struct Finished {
  int status = 0;
};
struct ServeCommand {
  std::string config;
  bool check = false;
};
struct GraphCommand {
  std::string config;
};
struct ExportCommand {
  std::string image;
  std::string format;  // "": what looks raw is raw, the rest is refused
  bool writable = false;
  std::string name;
  std::string description;
  std::vector<std::string> listen;  // none: default_listen
  std::uint32_t connections_max = 100;
  EngineKind io_engine = EngineKind::automatic;
  std::uint64_t offset = 0;           // bytes
  std::optional<std::uint64_t> size;  // bytes
  std::string snapshot;               // "": the active disk
  bool snapshots = false;             // all of them, too, as NAME@SNAPSHOT
};
struct CtlCommand {
  Address socket;
  std::string command;
  Json arguments = JsonObject();
};
struct CreateCommand {
  std::string image;
  std::string format;
  std::vector<std::string> options;  // "key=value,...", as typed
  std::string size;                  // as typed; "": it is among the options
  bool force = false;                // a file that is there loses what it holds
};
struct BitmapCommand {
  enum class Action : std::uint8_t { list, add, remove, clear, enable, disable };
  Action action = Action::list;
  std::string image;
  std::string name;                          // "": with list
  std::optional<std::uint64_t> granularity;  // bytes; with add
  bool json = false;                         // with list
};
struct SnapshotCommand {
  enum class Action : std::uint8_t { list, create, apply, remove };
  Action action = Action::list;
  std::string image;
  std::string name;   // or an id; "": with list
  bool json = false;  // what there is, or was changed
};
struct CheckCommand {
  std::string image;
  std::string format;  // "": what it looks like
  formats::qcow2::Repair repair = formats::qcow2::Repair::none;
  bool json = false;
};
struct InfoCommand {
  std::string image;
  std::string format;  // "": what it looks like
  bool backing_chain = false;
  bool json = false;
};
struct MapCommand {
  std::string image;
  std::string format;  // "": what it looks like
  bool json = false;
};
struct ResizeCommand {
  enum class Step : std::uint8_t { to, by, less };
  std::string image;
  std::string format;  // "": what it looks like
  Step step = Step::to;
  std::uint64_t bytes = 0;
  bool may_shrink = false;
  formats::qcow2::Preallocation preallocation = formats::qcow2::Preallocation::off;
};
using Command = std::variant<Finished, ServeCommand, GraphCommand, ExportCommand, CtlCommand,
                             CreateCommand, CheckCommand, InfoCommand, BitmapCommand,
                             SnapshotCommand, MapCommand, ResizeCommand>;

// Every value in the result has been checked; wrong use is told on stderr and ends with status 2.
Command parse_command_line(int argc, const char* const* argv, Drivers drivers);

// The drivers that make an image of the bytes of one file: what --format takes.
std::vector<std::string> format_names(Drivers drivers);

// What an `export` serves, as a file would describe it.
// Errors: invalid_argument.
Result<Config> config_of(const ExportCommand& command, Drivers drivers);

}  // namespace app
