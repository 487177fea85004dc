// command.h - what a command of the control socket is: a name, its arguments, and what it does. A
// command is a row of the table in commands.cpp.
#pragma once

#include <expected>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "graph/base/json.h"
#include "graph/base/task.h"
#include "src/site.h"

namespace app::control {

// The classes that QMP has for errors.
enum class ErrorClass : std::uint8_t { generic, command_not_found, device_not_found };

// Why a command was not carried out, for the client.
struct Refusal {
  ErrorClass kind = ErrorClass::generic;
  std::string text;
  Refusal(Error error) : text(std::move(error.message)) {}
  Refusal(ErrorClass which, std::string why) : kind(which), text(std::move(why)) {}
};
template <class T>
using Answer = std::expected<T, Refusal>;

// The daemon, as commands see it. They run on its front.
class Host {
 public:
  virtual ~Host() = default;
  virtual Site& site() = 0;
  // As SIGTERM does.
  virtual void quit() = 0;
};

enum class ArgumentKind : std::uint8_t { string, boolean, uint32, array, object, anything };
enum class Presence : std::uint8_t { required, optional };
struct Argument {
  std::string_view name;
  ArgumentKind kind;
  Presence presence = Presence::required;
};

// The arguments of one call. Lifetime: a view into the request.
class Arguments {
 public:
  explicit Arguments(const Json& object) : object_(object) {}
  // Null when it is absent.
  const Json* find(std::string_view name) const { return object_.find(name); }
  // Requires: it is there, and was declared as a string.
  const std::string& string(std::string_view name) const { return *find(name)->string(); }
  enum class Default : std::uint8_t { no, yes };
  // Requires: it was declared as a boolean.
  bool boolean(std::string_view name, Default absent = Default::no) const;
  // Requires: it was declared as a uint32.
  std::uint32_t uint32(std::string_view name, std::uint32_t absent) const;

 private:
  const Json& object_;
};

// Is `given` an object that has what it must have, of the right kinds, and nothing else? `path` is
// what stands before the names in messages: "", "bitmaps[0].".
// Errors: invalid_argument, in QEMU's words.
Result<> check_arguments(const Json& given, std::span<const Argument> declared,
                         const std::string& path = "");

// May others be carried out at the same time?
enum class Order : std::uint8_t { alone, beside };
enum class After : std::uint8_t { nothing, quit };

struct Command {
  std::string_view name;
  std::span<const Argument> arguments;
  // What stands behind "return". Lifetime: the parameters outlive it.
  asio::awaitable<Answer<Json>> (*carry_out)(Host& host, const Arguments& arguments);
  Order order = Order::alone;
  After after = After::nothing;  // once the reply is on its way
};

// All of them.
std::span<const Command> commands();

}  // namespace app::control
