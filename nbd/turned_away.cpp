#include "nbd/turned_away.h"

#include <cassert>
#include <string>
#include <utility>

namespace nbd {
namespace {

// "3 more clients turned away in the last 10 s: TEXT"
constexpr std::array<std::string_view, TurnedAway::whys> texts{
    "too many connections are open",
    "they did not finish the handshake and gave way to others",
    "they did not finish the handshake in time",
    "they made no sense in the handshake",
    "the server is stopping",
};

}  // namespace

TurnedAway::~TurnedAway() { assert(counting_.inside() == 0); }

void TurnedAway::note(Why why, std::string_view peer, std::string_view text) {
  Kind& kind = kinds_[static_cast<std::size_t>(why)];
  if (kind.pause || stopped_) {
    ++kind.more;
    return;
  }
  home_.log.write(LogLevel::info, "client " + std::string(peer) + ": " + std::string(text),
                  {.connection = peer});
  kind.pause = home_.clock.timer(interval);
  spawn(home_.executor, counting_.enter_anyway(), count(why, kind));
}

asio::awaitable<void> TurnedAway::count(Why why, Kind& kind) {
  bool goes_on = true;
  while (goes_on) {
    const bool over = co_await kind.pause->wait();
    goes_on = over && kind.more > 0;
    if (kind.more > 0) {
      const std::size_t more = std::exchange(kind.more, 0);
      home_.log.info(std::to_string(more) + " more " + (more == 1 ? "client" : "clients") +
                     " turned away in the last " +
                     std::to_string(interval / std::chrono::seconds(1)) +
                     " s: " + std::string(texts[static_cast<std::size_t>(why)]));
    }
    if (goes_on) kind.pause = home_.clock.timer(interval);
  }
  kind.pause.reset();
}

asio::awaitable<void> TurnedAway::stop() {
  stopped_ = true;
  for (Kind& kind : kinds_) {
    if (kind.pause) kind.pause->cancel();
  }
  co_await counting_.drained();
}

}  // namespace nbd
