#include "src/control/server.h"

namespace app::control {

void Server::receive(std::unique_ptr<Stream> stream) {
  if (gate_.closed() || sessions_.size() == sessions_max) {
    home_.log.info("control client " + stream->peer() + " turned away: there are " +
                   std::to_string(sessions_.size()) + " already");
    stream->close();
    return;
  }
  home_.log.debug("control client " + stream->peer());
  auto session = std::make_shared<Session>(home_, host_, turns_, std::move(stream));
  sessions_.push_back(session);
  spawn(home_.executor, gate_.enter_anyway(), attend(std::move(session)));
}

asio::awaitable<void> Server::attend(std::shared_ptr<Session> session) {
  co_await session->run();
  std::erase(sessions_, session);
}

void Server::emit(std::string_view event, Json data) {
  const std::string text = to_text(event_message(event, std::move(data)));
  const std::vector<std::shared_ptr<Session>> all = sessions_;
  for (const auto& session : all) session->tell(text);
}

asio::awaitable<void> Server::stop() {
  gate_.close();
  const std::vector<std::shared_ptr<Session>> all = sessions_;
  for (const auto& session : all) session->end();
  co_await gate_.drained();
}

}  // namespace app::control
