#include "src/config.h"

#include <algorithm>
#include <array>

#include "nbd/export.h"
#include "src/include.h"

namespace app {
namespace {

constexpr std::array server_specs{
    OptionSpec{
        "listen", Kind::list, default_listen,
        "\"unix:PATH\", \"tcp:HOST:PORT\", \"vsock:CID:PORT\", \"systemd\", a table, or a list of "
        "them; port 0 picks one"},
    OptionSpec{"control", Kind::text, "",
               "\"unix:PATH\": a socket that only its owner reaches, for gantry ctl and other "
               "clients that speak QMP"},
    OptionSpec{"workers", Kind::integer, "0",
               "threads that carry out requests; 0: one for each processor"},
    OptionSpec{"max-connections", Kind::integer, "100", "clients at a time; more are turned away"},
    OptionSpec{
        "max-connections-per-peer", Kind::integer, "",
        "of them, from one host or user; without it 16, and no limit for this machine's own"},
    OptionSpec{"max-handshakes", Kind::integer, "32",
               "clients that have not chosen an export yet; the oldest gives way to one more"},
    OptionSpec{"max-options", Kind::integer, "256",
               "options in one handshake, and two more for each export"},
    OptionSpec{"max-option-bytes", Kind::bytes, "1M", "of one option in the handshake"},
    OptionSpec{"max-requests-in-flight", Kind::integer, "256",
               "of one connection; then it has to wait"},
    OptionSpec{"max-bytes-in-flight", Kind::bytes, "64M", "of one connection's requests"},
    OptionSpec{"buffer-memory", Kind::bytes, "256M", "for all requests in flight"},
    OptionSpec{"handshake-timeout", Kind::duration, "10s",
               "how long a client may take to choose an export; 0s: for ever"},
    OptionSpec{"peer-timeout", Kind::duration, "2min",
               "a TCP client that answers nothing for so long is lost; 0s: the system decides"},
    OptionSpec{"drain-timeout", Kind::duration, "10s",
               "how long requests in flight may take at a stop, and then the last flush"},
    OptionSpec{"io-engine", Kind::choice, "auto",
               "how files are read and written; auto: by io_uring where it is allowed",
               engine_kinds},
    OptionSpec{"log-level", Kind::choice, "info", "the least that is logged",
               "debug|info|warning|error"},
    OptionSpec{"log-format", Kind::choice, "text", "lines of text, or of JSON for programs",
               "text|json"},
};

constexpr std::array export_specs{
    OptionSpec{"node", Kind::text, "", "the node that is served"},
    OptionSpec{"writable", Kind::boolean, "false", "may clients write?"},
    OptionSpec{"description", Kind::text, "", "a text for people who list the exports"},
    OptionSpec{"offset", Kind::bytes, "0", "first byte of the node that is served"},
    OptionSpec{"size", Kind::bytes, "rest", "bytes served; without it all up to the node's end"},
    OptionSpec{"snapshot", Kind::text, "",
               "an internal snapshot of the node, by id or name, instead of its active disk"},
    OptionSpec{"snapshots", Kind::boolean, "false",
               "each internal snapshot of the node is served, too, as NAME@SNAPSHOT; later ones as "
               "well"},
    OptionSpec{"write-through", Kind::boolean, "false",
               "each write is durable when it is answered"},
};

constexpr std::int64_t workers_limit = 1024;

std::unexpected<Error> refuse(const Position& where, std::string why) {
  return std::unexpected(at_position(where, Error(Errc::invalid_argument, std::move(why))));
}

std::string did_you_mean(std::string_view word, std::span<const std::string> known) {
  const auto near = nearest(word, known);
  return near ? ", did you mean '" + *near + "'?" : "";
}

// [section], or an empty table.
Result<std::shared_ptr<const Options>> table_at(const Options& root, std::string_view section) {
  const OptionValue* value = root.find(section);
  if (value == nullptr) return std::make_shared<const Options>(root.position());
  const auto* table = std::get_if<std::shared_ptr<Options>>(&value->data);
  if (table == nullptr) {
    return refuse(value->position, "'" + std::string(section) + "': expected a table, not " +
                                       std::string(value->kind_name()));
  }
  return *table;
}

// The tables [section.NAME].
Result<std::vector<std::pair<std::string, std::shared_ptr<const Options>>>> tables_in(
    const Options& root, std::string_view section) {
  TRY(const auto outer, table_at(root, section));
  std::vector<std::pair<std::string, std::shared_ptr<const Options>>> result;
  for (const auto& [name, value] : outer->entries()) {
    const auto* table = std::get_if<std::shared_ptr<Options>>(&value.data);
    if (table == nullptr) {
      return refuse(value.position, "'" + std::string(section) + "." + name +
                                        "': expected a table, not " +
                                        std::string(value.kind_name()));
    }
    result.emplace_back(name, *table);
  }
  return result;
}

LogLevel log_level_of(std::string_view text) {
  if (text == "debug") return LogLevel::debug;
  if (text == "warning") return LogLevel::warning;
  return text == "error" ? LogLevel::error : LogLevel::info;
}

Result<> read_server(const Options& server, Config& config) {
  // read_listen() knows what it may be
  Options checked(server.position());
  for (const auto& [key, value] : server.entries()) {
    if (key != "listen") checked.set(key, value);
  }
  if (auto known = check_options(checked, server_specs); !known) return known;
  if (const OptionValue* listen = server.find("listen")) {
    TRY(config.listen, read_listen(*listen));
  }
  const OptionReader reader(checked, server_specs);
  if (const OptionValue* control = checked.find("control")) {
    TRY(config.control, read_control(*control));
  }
  TRY(config.limits, read_limits(reader));
  const std::int64_t workers = reader.integer("workers");
  if (workers < 0 || workers > workers_limit) {
    return refuse(reader.position("workers"), "'workers': " + std::to_string(workers) +
                                                  " is not in 0 to " +
                                                  std::to_string(workers_limit));
  }
  config.workers = static_cast<std::uint32_t>(workers);
  config.io_engine = engine_kind_of(reader.text("io-engine"));
  config.log_level = log_level_of(reader.text("log-level"));
  if (reader.text("log-format") == "json") config.log_format = LogFormat::json;
  return ok;
}

// Puts children before parents, whatever their order in the file.
class NodeOrder {
 public:
  NodeOrder(const std::vector<NodeConfig>& nodes, Drivers drivers)
      : nodes_(nodes), drivers_(drivers), states_(nodes.size(), State::fresh) {
    for (const NodeConfig& node : nodes) names_.push_back(node.name);
  }

  Result<std::vector<NodeConfig>> sorted() {
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      if (auto placed = place(i); !placed) return std::unexpected(std::move(placed).error());
    }
    return std::move(order_);
  }

 private:
  enum class State : std::uint8_t { fresh, open, placed };

  Result<> place(std::size_t index) {
    if (states_[index] == State::placed) return ok;
    states_[index] = State::open;
    path_.push_back(index);
    if (auto below = place_children(*nodes_[index].options, nodes_[index].name); !below)
      return below;
    path_.pop_back();
    states_[index] = State::placed;
    order_.push_back(nodes_[index]);
    return ok;
  }

  // Requires: check_node() was content with `options`.
  Result<> place_children(const Options& options, const std::string& parent) {
    const std::string& kind = *options.find("driver")->text();
    const graph::Driver& driver = **std::ranges::find(drivers_, kind, &graph::Driver::name);
    for (const OptionSpec& spec : driver.options) {
      const OptionValue* child = spec.kind == Kind::node ? options.find(spec.key) : nullptr;
      if (child == nullptr) continue;
      Result<> placed = child->table() != nullptr ? place_children(*child->table(), parent)
                                                  : place_named(*child, parent);
      if (!placed) return placed;
    }
    return ok;
  }

  Result<> place_named(const OptionValue& reference, const std::string& parent) {
    const std::string& name = *reference.text();
    if (name.empty()) return ok;  // none: the driver knows whether it can do without
    const auto found = std::ranges::find(names_, name);
    if (found == names_.end()) {
      return refuse(reference.position,
                    parent + ": there is no node '" + name + "'" + did_you_mean(name, names_));
    }
    const auto index = static_cast<std::size_t>(found - names_.begin());
    if (states_[index] != State::open) return place(index);
    std::string cycle;
    for (auto at = std::ranges::find(path_, index); at != path_.end(); ++at) {
      cycle += "'" + names_[*at] + "' -> ";
    }
    return refuse(reference.position, "the nodes form a cycle: " + cycle + "'" + name + "'");
  }

  const std::vector<NodeConfig>& nodes_;
  const Drivers drivers_;
  std::vector<std::string> names_;
  std::vector<State> states_;
  std::vector<std::size_t> path_;  // from the root of the search to the node that is open
  std::vector<NodeConfig> order_;
};

Result<> read_nodes(const Options& root, Drivers drivers, Config& config) {
  TRY(const auto tables, tables_in(root, "nodes"));
  const FindNode find = [&tables](std::string_view wanted) -> const Options* {
    const auto found =
        std::ranges::find_if(tables, [&](const auto& each) { return each.first == wanted; });
    return found == tables.end() ? nullptr : &*found->second;
  };
  std::vector<NodeConfig> nodes;
  for (const auto& [name, options] : tables) {
    if (name.empty()) return refuse(options->position(), "a node needs a name");
    TRY(NodeWithImage split, split_off_image(options, find));
    if (auto known = graph::check_node(name, *split.options, drivers); !known) {
      return std::unexpected(std::move(known).error());
    }
    nodes.push_back({name, std::move(split.options), std::move(split.image)});
  }
  TRY(config.nodes, NodeOrder(nodes, drivers).sorted());
  return ok;
}

Result<ExportConfig> read_export(const std::string& name, const Options& options,
                                 const Config& config) {
  if (auto known = check_options(options, export_specs); !known) {
    return std::unexpected(std::move(known).error());
  }
  const OptionReader reader(options, export_specs);
  ExportConfig result;
  result.name = name;
  result.position = options.position();
  if (auto fits = check_wire_text("the name of an export", name); !fits) {
    return std::unexpected(at_position(options.position(), std::move(fits).error()));
  }
  result.description = reader.text("description");
  if (auto fits = check_wire_text("'description'", result.description); !fits) {
    return std::unexpected(at_position(reader.position("description"), std::move(fits).error()));
  }
  if (!reader.has("node")) {
    return refuse(options.position(),
                  "export '" + printable(name) + "': the key 'node' is missing");
  }
  result.node = reader.text("node");
  std::vector<std::string> nodes;
  for (const NodeConfig& node : config.nodes) nodes.push_back(node.name);
  if (std::ranges::find(nodes, result.node) == nodes.end()) {
    return refuse(reader.position("node"), "export '" + printable(name) + "': there is no node '" +
                                               printable(result.node) + "'" +
                                               did_you_mean(result.node, nodes));
  }
  result.writable = reader.boolean("writable");
  result.write_through = reader.boolean("write-through");
  if (reader.has("snapshot")) {
    result.snapshot = reader.text("snapshot");
    if (result.snapshot.empty()) return refuse(reader.position("snapshot"), "'snapshot' is empty");
    if (result.writable) {
      return refuse(reader.position("snapshot"),
                    "export '" + printable(name) + "': a snapshot can't be writable");
    }
  }
  result.snapshots = reader.boolean("snapshots");
  for (const char* key : {"snapshot", "offset", "size"}) {
    if (!result.snapshots || !reader.has(key)) continue;
    return refuse(reader.position("snapshots"), "export '" + printable(name) +
                                                    "': 'snapshots' serves whole disks beside the "
                                                    "live one, and does not go with '" +
                                                    key + "'");
  }
  result.offset = reader.bytes("offset");
  if (reader.has("size")) result.size = reader.bytes("size");
  result.window_position = reader.position(reader.has("size") ? "size" : "offset");
  return result;
}

}  // namespace

std::span<const OptionSpec> server_options() { return server_specs; }
std::span<const OptionSpec> export_options() { return export_specs; }

Result<> check_wire_text(std::string_view what, std::string_view text) {
  if (text.size() > nbd::string_length_max) {
    return failure(Errc::invalid_argument,
                   std::string(what) + " has " + std::to_string(text.size()) + " bytes, at most " +
                       std::to_string(nbd::string_length_max) + " are allowed");
  }
  if (text.find('\0') != std::string_view::npos) {
    return failure(Errc::invalid_argument, std::string(what) + " contains a NUL");
  }
  if (!is_utf8(text)) return failure(Errc::invalid_argument, std::string(what) + " is not UTF-8");
  return ok;
}

Result<Config> read_config(const Options& root, Drivers drivers) {
  const std::vector<std::string> sections{"server", "nodes", "exports", "include"};
  for (const auto& [key, value] : root.entries()) {
    if (std::ranges::find(sections, key) == sections.end()) {
      return refuse(value.position,
                    "unknown key '" + printable(key) + "'" + did_you_mean(key, sections));
    }
  }
  Config config;
  config.position.file = root.position().file;
  config.tree = std::make_shared<const Options>(root);
  TRY(const auto server, table_at(root, "server"));
  if (auto read = read_server(*server, config); !read) return std::unexpected(read.error());
  if (auto read = read_nodes(root, drivers, config); !read) return std::unexpected(read.error());
  TRY(const auto exports, tables_in(root, "exports"));
  for (const auto& [name, options] : exports) {
    TRY(ExportConfig item, read_export(name, *options, config));
    config.exports.push_back(std::move(item));
  }
  return config;
}

Result<Config> load_config(const std::string& path, Drivers drivers) {
  TRY(const Options root, load_with_includes(path));
  return read_config(root, drivers);
}

}  // namespace app
