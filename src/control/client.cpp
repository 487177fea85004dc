#include "src/control/client.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "src/control/json_reader.h"
#include "src/descriptor.h"
#include "src/socket_stream.h"

namespace app::control {
namespace {

constexpr std::size_t input_length = 64 * KiB;
// The server is trusted more than its clients are: a description of many nodes is long.
constexpr ReaderLimits answer_limits{1 * GiB, {64, 100'000'000}};

class Conversation {
 public:
  Conversation(Stream& stream, const std::function<void(const Json&)>& event)
      : stream_(stream), event_(event) {}

  Task<> greet() {
    CO_TRY(const Json greeting, co_await next());
    if (greeting.find("QMP") == nullptr) {
      co_return failure(Errc::corrupt, "the other side does not speak QMP");
    }
    const Json none{JsonObject()};
    auto agreed = co_await ask("qmp_capabilities", none);
    if (!agreed) co_return std::unexpected(std::move(agreed).error());
    co_return ok;
  }

  Task<Json> ask(std::string_view command, const Json& arguments) {
    Json request;
    request.set("execute", command);
    request.set("arguments", arguments);
    const std::string text = to_text(request) + "\n";
    const ConstBuffers list(bytes_of(text));
    CO_CHECK(co_await write_all(stream_, list));
    while (true) {
      CO_TRY(const Json message, co_await next());
      if (const Json* value = message.find("return")) co_return *value;
      if (const Json* error = message.find("error")) co_return refusal(*error);
      if (message.find("event") != nullptr) event_(message);
    }
  }

 private:
  static std::unexpected<Error> refusal(const Json& error) {
    const Json* text = error.find("desc");
    const bool says_why = text != nullptr && text->string() != nullptr;
    return failure(Errc::invalid_argument, says_why ? *text->string() : to_text(error));
  }

  Task<Json> next() {
    while (true) {
      if (std::optional<Result<Json>> value = reader_.take(rest_)) {
        if (*value) co_return **std::move(value);
        co_return failure(Errc::corrupt, "not QMP: " + value->error().message);
      }
      CO_CHECK(co_await stream_.readable());
      CO_TRY(const std::size_t got, stream_.read_now(input_));
      rest_ = {reinterpret_cast<const char*>(input_.data()), got};
    }
  }

  Stream& stream_;
  const std::function<void(const Json&)>& event_;
  JsonReader reader_{answer_limits};
  std::vector<std::byte> input_ = std::vector<std::byte>(input_length);
  std::string_view rest_;  // of the input
};

Result<Descriptor> connect_to(const Address& address) {
  Descriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  address.path.copy(name.sun_path, sizeof name.sun_path - 1);
  if (!socket.open() ||
      ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0) {
    return std::unexpected(error_from_errno(errno, printable(address.path)));
  }
  return socket;
}

}  // namespace

Task<Json> call(Stream& stream, std::string_view command, const Json& arguments,
                const std::function<void(const Json&)>& event) {
  Conversation conversation(stream, event);
  CO_CHECK(co_await conversation.greet());
  co_return co_await conversation.ask(command, arguments);
}

Task<int> ctl(Worker& worker, const CtlCommand& command) {
  CO_TRY(Descriptor socket, connect_to(command.socket));
  CO_TRY(const std::unique_ptr<Stream> stream,
         socket_stream(worker.home().executor, socket.release()));
  const std::function<void(const Json&)> event = [](const Json& message) {
    std::fprintf(stderr, "%s\n", to_text(message).c_str());
  };
  CO_TRY(const Json value, co_await call(*stream, command.command, command.arguments, event));
  std::printf("%s\n", to_text(value).c_str());
  co_return std::fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace app::control
