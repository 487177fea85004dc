#include "src/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <map>

#include "formats/qcow2/create_options.h"
#include "src/create.h"

namespace app {
namespace {

constexpr int status_wrong_use = 2;

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

// Without the first line, which is a title.
std::string indented(std::string_view text) {
  std::string result;
  text.remove_prefix(text.find('\n') + 1);
  while (!text.empty()) {
    const std::size_t end = text.find('\n') + 1;
    result += "  " + std::string(text.substr(0, end));
    text.remove_prefix(end);
  }
  return result;
}

// One line for each key: its default and what it means.
std::string keys_text(std::string_view title, std::span<const OptionSpec> specs) {
  constexpr std::size_t column = 36;
  std::string text = std::string(title) + "\n";
  for (const OptionSpec& spec : specs) {
    std::string line = "  " + std::string(spec.key);
    if (!spec.fallback.empty()) line += " = " + std::string(spec.fallback);
    line.append(line.size() < column ? column - line.size() : 1, ' ');
    text += line + std::string(spec.help);
    if (!spec.choices.empty()) text += " (" + std::string(spec.choices) + ")";
    text += "\n";
    if (spec.each != nullptr) text += indented(keys_text("", spec.each->keys));
  }
  return text;
}

std::string config_help(Drivers drivers) {
  std::string text = "CONFIG is a TOML file. Its keys, with their defaults:\n\n";
  text += keys_text("[server]", server_options()) + "\n";
  text += keys_text("listen = [{ ... }]: a listener that needs more than an address",
                    listener_options()) +
          "\n";
  text += keys_text("[exports.NAME]", export_options()) + "\n";
  text += keys_text("[nodes.NAME], whatever its driver", graph::common_node_options());
  for (const graph::Driver* driver : drivers) {
    text += "\n" + keys_text("driver = \"" + std::string(driver->name) +
                                 "\": " + std::string(driver->help),
                             driver->options);
  }
  text +=
      "\nA node with the driver qcow2 may have a table `create`: then the image is made if there "
      "is "
      "no file.\nIts keys are those of `gantry create -o`.\n";
  return text;
}

std::string formats_help(Drivers drivers) {
  std::string text = "Formats:\n";
  const std::vector<std::string> names = format_names(drivers);
  for (const graph::Driver* driver : drivers) {
    if (std::ranges::find(names, driver->name) == names.end()) continue;
    text += "  " + std::string(driver->name) + ": " + std::string(driver->help) + "\n";
  }
  return text +
         "WHERE is unix:PATH, tcp:HOST:PORT or vsock:CID:PORT; sizes are in bytes, or with K, M, "
         "G, T.";
}

// CLI11 wants "" for what is right.
template <class T>
std::string complaint(const Result<T>& result) {
  return result ? "" : result.error().message;
}

struct Parsed {
  ServeCommand serve;
  GraphCommand graph;
  ExportCommand exported;
  CreateCommand create;
  BitmapCommand bitmap;
  std::string granularity;
  SnapshotCommand snapshot;
  CheckCommand check;
  InfoCommand info;
  MapCommand map;
  ResizeCommand resize;
  std::string new_size;
  std::string preallocation = "off";
  std::string repair;
  std::string io_engine = "auto";
  std::string offset = "0";
  std::string size;
  std::string control_socket;
  std::string control_command;
  std::string control_arguments = "{}";
  std::string help_topic;
};

void describe_serve(CLI::App& command, ServeCommand& serve, Drivers drivers) {
  command.add_option("CONFIG", serve.config, "TOML file")->required();
  command.add_flag("--check", serve.check,
                   "open everything, print the graph and the exports, and end; nothing listens");
  command.footer([drivers] { return config_help(drivers); });
}

void describe_export(CLI::App& command, Parsed& parsed, Drivers drivers) {
  ExportCommand& exported = parsed.exported;
  const auto bytes = [](const std::string& text) { return complaint(parse_bytes(text)); };
  const auto wire_text = [](const std::string& text) {
    return complaint(check_wire_text("the text", text));
  };
  const auto format = [drivers](const std::string& text) -> std::string {
    const std::vector<std::string> names = format_names(drivers);
    if (std::ranges::find(names, text) != names.end()) return "";
    return "there is no format '" + printable(text) + "', known are: " + joined(names);
  };
  const auto address = [](const std::string& text) { return complaint(parse_address(text)); };
  const std::vector<std::string> engines{"auto", "io_uring", "threads"};
  command.add_option("IMAGE", exported.image, "file or block device")->required();
  command
      .add_option("--format", exported.format, "of the image; without it only raw ones are served")
      ->check(format, "", "FORMAT");
  command.add_flag("--writable", exported.writable, "clients may write");
  command.add_option("--name", exported.name, "of the export; the default is the empty name")
      ->check(wire_text);
  command.add_option("--description", exported.description, "a text for who lists the exports")
      ->check(wire_text);
  command
      .add_option("--listen", exported.listen,
                  "WHERE to listen, may be repeated; the default is " + std::string(default_listen))
      ->check(address)
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command.add_option("--max-connections", exported.connections_max, "clients at a time")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  command.add_option("--io-engine", parsed.io_engine, "how files are read and written")
      ->check(CLI::IsMember(engines))
      ->capture_default_str();
  CLI::Option* offset =
      command.add_option("--offset", parsed.offset, "first byte of the image that is served")
          ->check(bytes);
  CLI::Option* snapshot =
      command.add_option("--snapshot", exported.snapshot, "an internal snapshot, by id or name");
  CLI::Option* size =
      command.add_option("--size", parsed.size, "bytes served; the default is the rest")
          ->check(bytes);
  command
      .add_flag("--snapshots", exported.snapshots, "all internal snapshots, too, as NAME@SNAPSHOT")
      ->excludes(snapshot, size, offset);
  command.footer([drivers] { return formats_help(drivers); });
}

// PATH, or unix:PATH.
Result<Address> control_address(const std::string& text) {
  return parse_address(text.starts_with("unix:") ? text : "unix:" + text);
}

Result<Json> control_arguments(const std::string& text) {
  auto value = parse_json(text);
  if (value && value->object() == nullptr) {
    return failure(Errc::invalid_argument, "expected a JSON object such as {\"node\": \"disk\"}");
  }
  return value;
}

void describe_ctl(CLI::App& command, Parsed& parsed) {
  const auto socket = [](const std::string& text) { return complaint(control_address(text)); };
  const auto arguments = [](const std::string& text) { return complaint(control_arguments(text)); };
  command.add_option("SOCKET", parsed.control_socket, "the daemon's control socket")
      ->required()
      ->check(socket, "", "PATH");
  command.add_option("COMMAND", parsed.control_command, "a QMP command, such as query-commands")
      ->required();
  command.add_option("JSON", parsed.control_arguments, "its arguments, a JSON object")
      ->check(arguments, "", "OBJECT");
  command.footer(
      "Prints what the daemon returns, as JSON. Exit status 1: the daemon says no, why "
      "is on stderr.");
}

void describe_create(CLI::App& command, CreateCommand& create) {
  const auto words = [](const std::string& text) { return complaint(parse_option_words(text)); };
  const auto bytes = [](const std::string& text) { return complaint(parse_bytes(text)); };
  command.add_option("--format", create.format, "of the image")
      ->required()
      ->check(CLI::IsMember(creatable_formats()));
  command.add_option("-o", create.options, "KEY=VALUE,... with more about the image")
      ->check(words)
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command.add_flag("--force", create.force, "overwrite a file that is there, or a block device");
  command.add_option("FILE", create.image, "file, which is made, or block device")->required();
  command.add_option("SIZE", create.size, "of the disk: bytes, or with K, M, G, T")->check(bytes);
  command.footer([] {
    return keys_text("-o KEY=VALUE,... of qcow2:", formats::qcow2::create_option_specs()) +
           "\n-o KEY=VALUE,... of raw:\n  size, preallocation (off|falloc|full)\n";
  });
}

// The action is a command of its own, since each takes other words.
void describe_bitmap(CLI::App& command, Parsed& parsed) {
  using Action = BitmapCommand::Action;
  struct Described {
    const char* word;
    Action action;
    const char* help;
  };
  constexpr std::array actions{
      Described{"list", Action::list, "Lists the bitmaps of an image"},
      Described{"add", Action::add, "Adds one: what is written from now on is noted in it"},
      Described{"remove", Action::remove, "Takes one out of the image"},
      Described{"clear", Action::clear, "Makes all of one clean"},
      Described{"enable", Action::enable, "What is written from now on is noted"},
      Described{"disable", Action::disable, "What is written from now on is not noted"}};
  const auto bytes = [](const std::string& text) { return complaint(parse_bytes(text)); };
  command.require_subcommand(1);
  for (const Described& each : actions) {
    CLI::App& action = *command.add_subcommand(each.word, each.help);
    action.add_option("IMAGE", parsed.bitmap.image, "a qcow2 image that nobody has open")
        ->required();
    if (each.action == Action::list) {
      action.add_flag("--json", parsed.bitmap.json, "as a JSON array");
    } else {
      action.add_option("NAME", parsed.bitmap.name, "of the bitmap")->required();
    }
    if (each.action == Action::add) {
      action
          .add_option("--granularity", parsed.granularity,
                      "bytes that share a bit, a power of two; the default is the cluster size, "
                      "but 4K to 64K")
          ->check(bytes);
    }
    action.callback([&parsed, chosen = each.action] { parsed.bitmap.action = chosen; });
  }
}

void describe_snapshot(CLI::App& command, SnapshotCommand& snapshot) {
  using Action = SnapshotCommand::Action;
  struct Described {
    const char* word;
    Action action;
    const char* help;
    const char* name;  // what NAME is; null: there is none
  };
  constexpr std::array actions{
      Described{"list", Action::list, "Lists the snapshots of an image", nullptr},
      Described{"create", Action::create, "Keeps the disk as it is now", "of the new snapshot"},
      Described{"apply", Action::apply, "The disk becomes what a snapshot is", "an id or a name"},
      Described{"delete", Action::remove, "Takes a snapshot out of the image", "an id or a name"}};
  command.require_subcommand(1);
  for (const Described& each : actions) {
    CLI::App& action = *command.add_subcommand(each.word, each.help);
    action.add_option("IMAGE", snapshot.image, "a qcow2 image that nobody has open")->required();
    if (each.name != nullptr) action.add_option("NAME", snapshot.name, each.name)->required();
    if (each.action != Action::apply) {
      action.add_flag("--json", snapshot.json, "prints it as JSON, with QEMU's keys");
    }
    action.callback([&snapshot, chosen = each.action] { snapshot.action = chosen; });
  }
}

void describe_check(CLI::App& command, Parsed& parsed) {
  const std::vector<std::string> repairs{"leaks", "all"};
  const std::vector<std::string> formats{"qcow2", "raw"};
  command.add_option("IMAGE", parsed.check.image, "file or block device")->required();
  command.add_option("--format", parsed.check.format, "of the image; else what it looks like")
      ->check(CLI::IsMember(formats));
  command.add_option("--repair", parsed.repair, "leaks, which harm no data, or all that can be")
      ->check(CLI::IsMember(repairs));
  command.add_flag("--json", parsed.check.json, "the result as JSON, with qemu-img's keys");
  command.footer("Exit status: 0 clean, 1 it could not be checked, 2 corrupt, 3 leaks.");
}

void describe_info(CLI::App& command, InfoCommand& info, Drivers drivers) {
  command.add_option("IMAGE", info.image, "file or block device")->required();
  command.add_option("--format", info.format, "of the image; else what it looks like")
      ->check(CLI::IsMember(format_names(drivers)));
  command.add_flag("--backing-chain", info.backing_chain, "the images below it, too");
  command.add_flag("--json", info.json, "as JSON, with qemu-img's keys");
}

void describe_map(CLI::App& command, MapCommand& map, Drivers drivers) {
  command.add_option("IMAGE", map.image, "file or block device")->required();
  command.add_option("--format", map.format, "of the image; else what it looks like")
      ->check(CLI::IsMember(format_names(drivers)));
  command.add_flag("--json", map.json, "as a JSON array, with qemu-img's keys");
}

// 10G, +10G, -10G
Result<ResizeCommand> parse_new_size(const std::string& text) {
  ResizeCommand command;
  std::string_view bytes = text;
  if (bytes.starts_with('+')) command.step = ResizeCommand::Step::by;
  if (bytes.starts_with('-')) command.step = ResizeCommand::Step::less;
  if (command.step != ResizeCommand::Step::to) bytes.remove_prefix(1);
  TRY(command.bytes, parse_bytes(bytes));
  return command;
}

using formats::qcow2::Preallocation;
const std::map<std::string, Preallocation> preallocations{{"off", Preallocation::off},
                                                          {"metadata", Preallocation::metadata},
                                                          {"falloc", Preallocation::falloc},
                                                          {"full", Preallocation::full}};

void describe_resize(CLI::App& command, Parsed& parsed) {
  const std::vector<std::string> formats{"qcow2", "raw"};
  const auto size = [](const std::string& text) { return complaint(parse_new_size(text)); };
  command.add_option("IMAGE", parsed.resize.image, "file or block device")->required();
  command.add_option("--format", parsed.resize.format, "of the image; else what it looks like")
      ->check(CLI::IsMember(formats));
  command.add_flag("--shrink", parsed.resize.may_shrink,
                   "it may become smaller: what is behind the new end is lost");
  command
      .add_option("--preallocation", parsed.preallocation,
                  "of what is new: nothing, its place in a qcow2 image, space of the file system, "
                  "written zeroes")
      ->check(CLI::IsMember(&preallocations))
      ->capture_default_str();
  command
      .add_option("SIZE", parsed.new_size,
                  "of the disk: bytes, or with K, M, G, T; +SIZE makes it larger, -SIZE smaller")
      ->required()
      ->check(size, "", "[+|-]SIZE");
}

int explain(const CLI::App& app, const std::string& topic) {
  if (topic.empty()) {
    // not app.help(): that explains the command that was typed, `help`
    std::cout << app.get_formatter()->make_help(&app, app.get_name(), CLI::AppFormatMode::Normal);
    return EXIT_SUCCESS;
  }
  for (const CLI::App* command : app.get_subcommands({})) {
    if (command->get_name() != topic) continue;
    std::cout << command->help(app.get_name());
    return EXIT_SUCCESS;
  }
  std::cerr << "there is no command '" << printable(topic) << "'\n";
  return status_wrong_use;
}

}  // namespace

std::vector<std::string> format_names(Drivers drivers) {
  std::vector<std::string> names;
  for (const graph::Driver* driver : drivers) {
    const bool has_file = std::ranges::any_of(driver->options, [](const OptionSpec& spec) {
      return spec.kind == Kind::node && spec.key == "file";
    });
    if (has_file && !driver->is_filter) names.emplace_back(driver->name);
  }
  return names;
}

Command parse_command_line(int argc, const char* const* argv, Drivers drivers) {
  Parsed parsed;
  CLI::App app("Serves disk images over the network, as NBD exports.", "gantry");
  app.set_version_flag("--version", "gantry " GANTRY_VERSION);
  app.require_subcommand(1);
  CLI::App& serve =
      *app.add_subcommand("serve", "Runs the exports of a TOML file until SIGTERM or Ctrl-C");
  CLI::App& exported = *app.add_subcommand("export", "Serves one image, without a file");
  CLI::App& create = *app.add_subcommand("create", "Makes an image");
  CLI::App& bitmap = *app.add_subcommand("bitmap", "The dirty bitmaps that a qcow2 image keeps");
  CLI::App& snapshot =
      *app.add_subcommand("snapshot", "The internal snapshots that a qcow2 image keeps");
  CLI::App& info = *app.add_subcommand("info", "Tells what an image is");
  CLI::App& check =
      *app.add_subcommand("check", "Looks for contradictions in an image, and repairs them");
  CLI::App& map = *app.add_subcommand("map", "Tells where the bytes of an image live");
  CLI::App& resize = *app.add_subcommand("resize", "Makes an image larger or smaller");
  CLI::App& graph = *app.add_subcommand("graph", "Prints the graph of a TOML file as Graphviz dot");
  CLI::App& ctl = *app.add_subcommand("ctl", "Sends one QMP command to a running daemon");
  CLI::App& help = *app.add_subcommand("help", "Says what a command does");
  describe_serve(serve, parsed.serve, drivers);
  describe_export(exported, parsed, drivers);
  describe_ctl(ctl, parsed);
  describe_create(create, parsed.create);
  describe_bitmap(bitmap, parsed);
  describe_snapshot(snapshot, parsed.snapshot);
  describe_check(check, parsed);
  describe_info(info, parsed.info, drivers);
  describe_map(map, parsed.map, drivers);
  describe_resize(resize, parsed);
  graph.add_option("CONFIG", parsed.graph.config, "TOML file")->required();
  help.add_option("COMMAND", parsed.help_topic, "one of the above");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& stop) {
    if (app.exit(stop) == 0) return Finished{EXIT_SUCCESS};
    // 2 would mean that the image is corrupt
    return Finished{check.parsed() ? EXIT_FAILURE : status_wrong_use};
  }
  if (help.parsed()) return Finished{explain(app, parsed.help_topic)};
  if (serve.parsed()) return parsed.serve;
  if (graph.parsed()) return parsed.graph;
  if (ctl.parsed()) {
    return CtlCommand{*control_address(parsed.control_socket), parsed.control_command,
                      *control_arguments(parsed.control_arguments)};
  }
  if (create.parsed()) return parsed.create;
  if (bitmap.parsed()) {
    if (!parsed.granularity.empty())
      parsed.bitmap.granularity = parse_bytes(parsed.granularity).value_or(0);
    return parsed.bitmap;
  }
  if (snapshot.parsed()) return parsed.snapshot;
  if (info.parsed()) return parsed.info;
  if (map.parsed()) return parsed.map;
  if (resize.parsed()) {
    const ResizeCommand size = *parse_new_size(parsed.new_size);
    parsed.resize.step = size.step;
    parsed.resize.bytes = size.bytes;
    parsed.resize.preallocation = preallocations.at(parsed.preallocation);
    return parsed.resize;
  }
  if (check.parsed()) {
    using formats::qcow2::Repair;
    if (!parsed.repair.empty()) {
      parsed.check.repair = parsed.repair == "all" ? Repair::all : Repair::leaks;
    }
    return parsed.check;
  }
  parsed.exported.offset = parse_bytes(parsed.offset).value_or(0);
  parsed.exported.io_engine = engine_kind_of(parsed.io_engine);
  if (!parsed.size.empty()) parsed.exported.size = parse_bytes(parsed.size).value_or(0);
  return parsed.exported;
}

Result<Config> config_of(const ExportCommand& command, Drivers drivers) {
  const auto text = [](std::string value) { return OptionValue{std::move(value), {}}; };
  const auto table = [](Options options) {
    return OptionValue{std::make_shared<Options>(std::move(options)), {}};
  };
  Options file;
  std::error_code unknown;  // then opening it says what is wrong
  const bool is_device = std::filesystem::is_block_file(command.image, unknown);
  file.set("driver", text(is_device ? "host_device" : "file"));
  file.set("filename", text(command.image));
  file.set("read-only", OptionValue{!command.writable, {}});
  Options image;
  image.set("driver", text(command.format.empty() ? "raw" : command.format));
  image.set("file", text("image-file"));
  image.set("read-only", OptionValue{!command.writable, {}});
  Options nodes;
  nodes.set("image-file", table(std::move(file)));
  nodes.set("image", table(std::move(image)));
  Options root;
  root.set("nodes", table(std::move(nodes)));

  TRY(Config config, read_config(root, drivers));
  config.limits.connections_max = command.connections_max;
  config.io_engine = command.io_engine;
  if (!command.listen.empty()) config.listen.clear();
  for (const std::string& where : command.listen) {
    TRY(Address address, parse_address(where));
    config.listen.push_back({std::move(address), {}});
  }
  ExportConfig only;
  only.name = command.name;
  only.node = "image";
  only.writable = command.writable;
  only.description = command.description;
  only.offset = command.offset;
  only.snapshot = command.snapshot;
  only.snapshots = command.snapshots;
  only.size = command.size;
  config.exports.push_back(std::move(only));
  return config;
}

}  // namespace app
