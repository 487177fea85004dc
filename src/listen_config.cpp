#include "src/listen_config.h"

#include <grp.h>
#include <pwd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>

#include "graph/base/log.h"

namespace app {
namespace {

constexpr std::array listener_specs{
    OptionSpec{"tcp", Kind::text, "", "\"HOST:PORT\""},
    OptionSpec{"unix", Kind::path, "", "path of a socket"},
    OptionSpec{"vsock", Kind::text, "", "\"CID:PORT\"; the CID is any, local, host or a number"},
    OptionSpec{"systemd", Kind::text, "",
               "sockets of systemd with this FileDescriptorName; \"\": all"},
    OptionSpec{"allow", Kind::list, "everybody",
               "networks (\"10.0.0.0/8\", \"2001:db8::7\") and CIDs (numbers) that may connect"},
    OptionSpec{"mode", Kind::text, "", "of a Unix socket: \"0660\""},
    OptionSpec{"owner", Kind::text, "", "of a Unix socket: a user's name or number"},
    OptionSpec{"group", Kind::text, "", "of a Unix socket: a group's name or number"},
};
constexpr std::array<std::string_view, 4> kinds{"tcp", "unix", "vsock", "systemd"};

std::unexpected<Error> refuse(const Position& where, std::string why) {
  return std::unexpected(at_position(where, Error(Errc::invalid_argument, std::move(why))));
}

std::string folder_of(const Position& where) {
  return std::filesystem::path(where.file).parent_path().string();
}

Result<Address> address_at(const std::string& text, const Position& where) {
  auto address = parse_address(text, folder_of(where));
  if (!address) return std::unexpected(at_position(where, std::move(address).error()));
  return address;
}

bool picks_a_port(const Address& address) {
  return address.port == 0 &&
         (address.family == Address::Family::tcp || address.family == Address::Family::vsock);
}

// The one of `kinds` that the table has.
Result<std::string_view> kind_of(const OptionReader& reader) {
  std::string_view found;
  for (const std::string_view kind : kinds) {
    if (!reader.has(kind)) continue;
    if (!found.empty()) {
      return refuse(reader.position(kind), "a listener has one address: '" + std::string(found) +
                                               "' or '" + std::string(kind) + "'");
    }
    found = kind;
  }
  if (!found.empty()) return found;
  return refuse(reader.options().position(),
                "a listener needs one of the keys tcp, unix, vsock and systemd");
}

// Requires: `entry` is a string.
Result<> add_network(const OptionValue& entry, Address::Family family, AllowList& list) {
  if (family == Address::Family::vsock) {
    return refuse(entry.position, "'allow': expected a CID, which is a number, not a string");
  }
  auto network = Network::parse(*entry.text());
  if (!network) {
    return refuse(entry.position, "'allow': " + printable(network.error().message));
  }
  list.networks.push_back(*std::move(network));
  return ok;
}

Result<> add_cid(const OptionValue& entry, Address::Family family, AllowList& list) {
  const std::int64_t cid = std::get<std::int64_t>(entry.data);
  if (family == Address::Family::tcp) {
    return refuse(entry.position,
                  "'allow': expected a network such as \"10.0.0.0/8\", not an integer");
  }
  if (cid < 0 || cid >= cid_any) {
    return refuse(entry.position,
                  "'allow': " + std::to_string(cid) + " is no CID: those are from 0 to 4294967294");
  }
  list.cids.push_back(static_cast<std::uint32_t>(cid));
  return ok;
}

Result<AllowList> read_allow(const OptionReader& reader, Address::Family family) {
  const OptionValue& value = *reader.options().find("allow");
  if (family == Address::Family::local) {
    return refuse(
        value.position,
        "'allow': a Unix socket has no networks; mode, owner and group say who reaches it");
  }
  const auto& entries = std::get<OptionList>(value.data);
  if (entries.empty())
    return refuse(value.position, "'allow': the list is empty, nobody could connect");
  AllowList list;
  for (const OptionValue& entry : entries) {
    Result<> added = ok;
    if (entry.text() != nullptr) {
      added = add_network(entry, family, list);
    } else if (std::holds_alternative<std::int64_t>(entry.data)) {
      added = add_cid(entry, family, list);
    } else {
      added = refuse(entry.position,
                     "'allow': expected a network or a CID, not " + std::string(entry.kind_name()));
    }
    if (!added) return std::unexpected(std::move(added).error());
  }
  return list;
}

Result<mode_t> read_mode(const OptionReader& reader) {
  constexpr unsigned mode_max = 0777;
  constexpr int octal = 8;
  const std::string text = reader.text("mode");
  unsigned mode = 0;
  const char* end = text.data() + text.size();
  const auto [stopped, problem] = std::from_chars(text.data(), end, mode, octal);
  if (problem != std::errc{} || stopped != end || mode > mode_max || text.size() < 3) {
    return refuse(reader.position("mode"), "'mode': '" + printable(text) +
                                               "' is none: expected octal digits such as \"0660\"");
  }
  return static_cast<mode_t>(mode);
}

template <class Id>
std::optional<Id> number_of(const std::string& text) {
  Id id{};
  const char* end = text.data() + text.size();
  const auto [stopped, problem] = std::from_chars(text.data(), end, id);
  // the last one stands for "unchanged"
  if (problem != std::errc{} || stopped != end || id == static_cast<Id>(-1)) return std::nullopt;
  return id;
}

Result<NamedId<uid_t>> read_owner(const OptionReader& reader) {
  const std::string name = reader.text("owner");
  if (const auto id = number_of<uid_t>(name)) return NamedId<uid_t>{*id, name};
  // no other thread asks
  const passwd* user = ::getpwnam(name.c_str());  // NOLINT(concurrency-mt-unsafe)
  if (user != nullptr) return NamedId<uid_t>{user->pw_uid, name};
  return refuse(reader.position("owner"),
                "'owner': there is no user '" + printable(name) + "' on this machine");
}

Result<NamedId<gid_t>> read_group(const OptionReader& reader) {
  const std::string name = reader.text("group");
  if (const auto id = number_of<gid_t>(name)) return NamedId<gid_t>{*id, name};
  const group* found = ::getgrnam(name.c_str());  // NOLINT(concurrency-mt-unsafe)
  if (found != nullptr) return NamedId<gid_t>{found->gr_gid, name};
  return refuse(reader.position("group"),
                "'group': there is no group '" + printable(name) + "' on this machine");
}

Result<Listen> read_table(const OptionValue& entry) {
  const Options& options = *entry.table();
  if (auto known = check_options(options, listener_specs); !known) {
    return std::unexpected(std::move(known).error());
  }
  const OptionReader reader(options, listener_specs);
  TRY(const std::string_view kind, kind_of(reader));
  Listen listen;
  listen.position = reader.position(kind);
  const std::string where = reader.text(kind);
  const bool all_of_systemd = kind == "systemd" && where.empty();
  TRY(listen.address,
      address_at(all_of_systemd ? "systemd" : std::string(kind) + ":" + where, listen.position));
  for (const char* key : {"mode", "owner", "group"}) {
    if (reader.has(key) && kind != "unix") {
      return refuse(reader.position(key),
                    "'" + std::string(key) + "' is for Unix sockets, and this listener has none");
    }
  }
  if (reader.has("allow")) {
    TRY(listen.allow, read_allow(reader, listen.address.family));
  }
  if (reader.has("mode")) {
    TRY(listen.file.mode, read_mode(reader));
  }
  if (reader.has("owner")) {
    TRY(listen.file.owner, read_owner(reader));
  }
  if (reader.has("group")) {
    TRY(listen.file.group, read_group(reader));
  }
  return listen;
}

}  // namespace

std::span<const OptionSpec> listener_options() { return listener_specs; }

Result<std::vector<Listen>> read_listen(const OptionValue& value) {
  OptionList entries;
  if (const auto* list = std::get_if<OptionList>(&value.data)) {
    if (list->empty()) return refuse(value.position, "'listen': the list is empty");
    entries = *list;
  } else if (value.text() != nullptr || value.table() != nullptr) {
    entries.push_back(value);
  } else {
    return refuse(value.position, "'listen': expected a string, a table or a list of them, not " +
                                      std::string(value.kind_name()));
  }
  std::vector<Listen> result;
  for (const OptionValue& entry : entries) {
    if (entry.table() != nullptr) {
      TRY(Listen listen, read_table(entry));
      result.push_back(std::move(listen));
    } else if (entry.text() != nullptr) {
      TRY(Address address, address_at(*entry.text(), entry.position));
      result.push_back({std::move(address), entry.position});
    } else {
      return refuse(entry.position,
                    "'listen': expected a string such as \"tcp:127.0.0.1:10809\" or a table, not " +
                        std::string(entry.kind_name()));
    }
    const Address& address = result.back().address;
    const auto same = [&](const Listen& earlier) { return earlier.address == address; };
    if (!picks_a_port(address) && std::any_of(result.begin(), std::prev(result.end()), same)) {
      return refuse(result.back().position,
                    "'listen': " + printable(address.text()) + " stands there twice");
    }
  }
  return result;
}

Result<Listen> read_control(const OptionValue& value) {
  constexpr mode_t owner_only = 0600;
  TRY(Address address, address_at(*value.text(), value.position));
  if (address.family != Address::Family::local || address.path.starts_with('\0')) {
    return refuse(value.position, "'control': " + printable(address.text()) +
                                      " is no socket with a file: expected \"unix:PATH\"");
  }
  Listen control{std::move(address), value.position};
  control.file.mode = owner_only;
  return control;
}

}  // namespace app
