// session.h - the conversation with one control client: its requests in their order, and events in
// between. It holds no more of a client than one request, one reply and some events: who does not
// read is left.
#pragma once

#include <memory>
#include <string>

#include "graph/base/gate.h"
#include "graph/base/home.h"
#include "graph/base/stream.h"
#include "src/control/dispatch.h"
#include "src/control/json_reader.h"

namespace app::control {

// Of what is on its way to a client, in bytes; an event too many ends the session.
inline constexpr std::size_t events_backlog_max = 1 * MiB;

class Session {
 public:
  // Lifetime: `home`, `host` and `turns` outlive the session.
  Session(Home& home, Host& host, Turns& turns, std::unique_ptr<Stream> stream);

  // Speaks until the client leaves or end() is called. A command that is being carried out then is
  // waited for.
  asio::awaitable<void> run();
  // To clients that have agreed on what they speak.
  void tell(const std::string& event);
  void end();

 private:
  asio::awaitable<void> listen();
  asio::awaitable<void> answer(std::string_view bytes);
  asio::awaitable<void> write();
  void send(const std::string& message);
  asio::awaitable<void> sent();

  Home& home_;
  Host& host_;
  Turns& turns_;
  const std::unique_ptr<Stream> stream_;
  Agreement agreement_;
  JsonReader reader_;
  std::string waiting_;      // messages that nobody writes yet
  std::size_t in_hand_ = 0;  // bytes that write() has taken
  bool over_ = false;
  WaitQueue changed_;  // waiting_, in_hand_ or over_
  Gate writing_;
};

}  // namespace app::control
