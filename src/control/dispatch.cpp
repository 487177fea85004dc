#include "src/control/dispatch.h"

#include <algorithm>
#include <array>
#include <chrono>

namespace app::control {
namespace {

// QEMU's release whose wire format, messages and commands these are.
constexpr int qemu_major = 7;
constexpr int qemu_minor = 2;
constexpr int qemu_micro = 0;

std::string_view name_of(ErrorClass kind) {
  switch (kind) {
    case ErrorClass::command_not_found:
      return "CommandNotFound";
    case ErrorClass::device_not_found:
      return "DeviceNotFound";
    case ErrorClass::generic:
      break;
  }
  return "GenericError";
}

std::unexpected<Refusal> refuse(std::string why, ErrorClass kind = ErrorClass::generic) {
  return std::unexpected(Refusal(kind, std::move(why)));
}

struct Call {
  std::string_view name;
  const Json* arguments = nullptr;  // null: none
  bool out_of_band = false;
};

// Lifetime: a view into `request`.
Answer<Call> call_in(const Json& request, const Agreement& agreement) {
  if (request.object() == nullptr) return refuse("QMP input must be a JSON object");
  Call call;
  std::string_view naming;  // the member that names the command
  for (const auto& [key, value] : *request.object()) {
    const std::string member = "QMP input member '" + key + "' ";
    if (key == "execute" || (key == "exec-oob" && agreement.oob)) {
      if (value.string() == nullptr) return refuse(member + "must be a string");
      if (!naming.empty()) return refuse(member + "clashes with '" + std::string(naming) + "'");
      naming = key;
      call.name = *value.string();
      call.out_of_band = key == "exec-oob";
    } else if (key == "arguments") {
      if (value.object() == nullptr) return refuse(member + "must be an object");
      call.arguments = &value;
    } else if (key != "id") {
      return refuse(member + "is unexpected");
    }
  }
  if (naming.empty()) return refuse("QMP input lacks member 'execute'");
  return call;
}

constexpr std::string_view capabilities_command = "qmp_capabilities";
constexpr std::array capabilities_arguments{
    Argument{"enable", ArgumentKind::array, Presence::optional}};

Answer<Json> agree(const Json& arguments, Agreement& agreement) {
  if (agreement.negotiated) {
    return refuse("Capabilities negotiation is already complete, command ignored",
                  ErrorClass::command_not_found);
  }
  if (Result<> known = check_arguments(arguments, capabilities_arguments); !known) {
    return std::unexpected(Refusal(known.error()));
  }
  bool oob = false;
  if (const Json* enable = arguments.find("enable")) {
    for (std::size_t i = 0; i < enable->array()->size(); ++i) {
      const std::string* wanted = (*enable->array())[i].string();
      const std::string name = "'enable[" + std::to_string(i) + "]'";
      if (wanted == nullptr) {
        return refuse("Invalid parameter type for " + name + ", expected: string");
      }
      if (*wanted != "oob") {
        return refuse("Parameter " + name + " does not accept value '" + *wanted + "'");
      }
      oob = true;
    }
  }
  agreement = {true, oob};
  return Json(JsonObject());
}

Answer<const Command*> command_for(const Call& call, const Json& arguments) {
  const auto found = std::ranges::find(commands(), call.name, &Command::name);
  if (found == commands().end() && call.name != capabilities_command) {
    return refuse("The command " + std::string(call.name) + " has not been found",
                  ErrorClass::command_not_found);
  }
  if (call.out_of_band) {
    return refuse("The command " + std::string(call.name) + " does not support OOB");
  }
  if (Result<> known = check_arguments(arguments, found->arguments); !known) {
    return std::unexpected(Refusal(known.error()));
  }
  return &*found;
}

const Json& no_arguments() {
  static const Json none{JsonObject()};
  return none;
}

asio::awaitable<Answer<Json>> carry_out(Host& host, Turns& turns, const Command& command,
                                        const Json& given) {
  Turns::Turn turn;
  if (command.order == Order::alone) turn = co_await turns.take();
  const Arguments arguments(given);
  co_return co_await command.carry_out(host, arguments);
}

asio::awaitable<Answer<Json>> answer_to(Host& host, Turns& turns, Agreement& agreement,
                                        const Json& request, After& after) {
  const Answer<Call> call = call_in(request, agreement);
  if (!call) co_return std::unexpected(call.error());
  const Json& arguments = call->arguments == nullptr ? no_arguments() : *call->arguments;
  const bool agrees = call->name == capabilities_command;
  if (agrees && !call->out_of_band) co_return agree(arguments, agreement);
  if (!agreement.negotiated) {
    co_return refuse("Expecting capabilities negotiation with 'qmp_capabilities'",
                     ErrorClass::command_not_found);
  }
  const Answer<const Command*> command = command_for(*call, arguments);
  if (!command) co_return std::unexpected(command.error());
  Answer<Json> answer = co_await carry_out(host, turns, **command, arguments);
  if (answer) after = (*command)->after;
  co_return answer;
}

Json reply_of(Answer<Json> answer) {
  Json reply;
  if (answer) {
    reply.set("return", *std::move(answer));
    return reply;
  }
  Json error;
  error.set("class", name_of(answer.error().kind));
  error.set("desc", answer.error().text);
  reply.set("error", std::move(error));
  return reply;
}

}  // namespace

Json version() {
  Json qemu;
  qemu.set("micro", qemu_micro);
  qemu.set("minor", qemu_minor);
  qemu.set("major", qemu_major);
  Json version;
  version.set("qemu", std::move(qemu));
  version.set("package", "gantry " GANTRY_VERSION);
  return version;
}

Json greeting() {
  JsonArray capabilities;
  capabilities.emplace_back("oob");
  Json about;
  about.set("version", version());
  about.set("capabilities", std::move(capabilities));
  Json greeting;
  greeting.set("QMP", std::move(about));
  return greeting;
}

asio::awaitable<Reply> reply_to(Host& host, Turns& turns, Agreement& agreement,
                                const Result<Json>& request) {
  Reply reply;
  if (!request) {
    Answer<Json> wrong = std::unexpected(Refusal(request.error()));
    reply.message = reply_of(std::move(wrong));
    co_return std::move(reply);
  }
  Answer<Json> answer = co_await answer_to(host, turns, agreement, *request, reply.after);
  reply.message = reply_of(std::move(answer));
  if (const Json* id = request->find("id")) reply.message.set("id", *id);
  co_return std::move(reply);
}

Json event_message(std::string_view name, Json data) {
  using std::chrono::microseconds;
  constexpr std::int64_t second = 1'000'000;  // in microseconds
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const std::int64_t us = std::chrono::duration_cast<microseconds>(now).count();
  Json timestamp;
  timestamp.set("seconds", us / second);
  timestamp.set("microseconds", us % second);
  Json event;
  event.set("timestamp", std::move(timestamp));
  event.set("event", name);
  event.set("data", std::move(data));
  return event;
}

}  // namespace app::control
