#include "src/daemon.h"

#include <algorithm>
#include <asio/redirect_error.hpp>
#include <asio/signal_set.hpp>
#include <asio/use_awaitable.hpp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ranges>
#include <vector>

#include "graph/base/wait_queue.h"
#include "src/crew.h"
#include "src/listeners.h"
#include "src/picture.h"
#include "src/site.h"

namespace app {
namespace {

// More exports than this are found by `nbdinfo --list`.
constexpr std::size_t exports_shown_max = 8;
constexpr auto leeway = std::chrono::seconds(1);  // of a stop, for what needs no time at all

void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

class Daemon {
 public:
  Daemon(Home& home, const Crew& crew, const Config& config, Drivers drivers)
      : home_(home),
        config_(config),
        site_(home, crew.homes(), config, drivers),
        listeners_(
            home, std::chrono::ceil<std::chrono::seconds>(config.limits.peer_timeout),
            [this](std::unique_ptr<Stream> stream) { site_.lobby().receive(std::move(stream)); }),
        signals_(home.executor, SIGINT, SIGTERM) {}

  Task<int> run() {
    spawn(home_.executor, watching_.enter_anyway(), watch_signals());
    Result<> served = co_await serve();
    signals_.cancel();
    co_await watching_.drained();
    if (!served) co_return std::unexpected(std::move(served).error());
    co_return stopped_cleanly_ ? EXIT_SUCCESS : EXIT_FAILURE;
  }

 private:
  // Errors: nothing could be started.
  Task<> serve() {
    CO_TRY(inherited_, take_inherited_sockets());
    CO_CHECK(co_await site_.open());
    Result<> listening = co_await listeners_.open(config_.listen, std::move(inherited_));
    if (listening) {
      home_.log.info("files are read and written by " + std::string(home_.engine.name()));
      listeners_.start();
      const std::vector<Address> addresses = listeners_.addresses();
      print(attach_text(addresses, *site_.lobby().offers()));
      while (!stopping_) co_await stop_.wait();
    }
    co_await listeners_.stop();
    const std::unique_ptr<Timer> patience =
        home_.clock.timer(2 * config_.limits.drain_timeout + leeway);
    spawn(home_.executor, watching_.enter_anyway(), watch_stop(*patience));
    stopped_cleanly_ = (co_await site_.close()).has_value();
    patience->cancel();
    if (stopped_cleanly_ && listening) home_.log.info("stopped");
    co_return listening;
  }

  asio::awaitable<void> watch_signals() {
    asio::error_code problem;
    const auto name = [](int number) {
      return std::string(number == SIGINT ? "SIGINT" : "SIGTERM");
    };
    const int first =
        co_await signals_.async_wait(asio::redirect_error(asio::use_awaitable, problem));
    if (problem) co_return;
    home_.log.info(name(first) + ": stopping; once more stops at once");
    stopping_ = true;
    stop_.notify_all();
    const int second =
        co_await signals_.async_wait(asio::redirect_error(asio::use_awaitable, problem));
    if (problem) co_return;
    home_.log.error(name(second) + " again: stopped at once, what was not flushed may be lost");
    listeners_.close();  // takes the sockets' files away
    std::_Exit(EXIT_FAILURE);
  }

  // Clients had drain-timeout, and then as long again was left for the last flush. What waits still
  // is a call of the kernel's that does not return, and nothing ends that but the end of the
  // process.
  asio::awaitable<void> watch_stop(Timer& patience) {
    if (!co_await patience.wait()) co_return;
    for (const std::string& name : site_.unfinished()) {
      home_.log.error("export '" + printable(name) +
                      "': cut off, its medium does not answer; what was not flushed may be lost");
    }
    std::_Exit(EXIT_FAILURE);
  }

  Home& home_;
  const Config& config_;
  Site site_;
  Listeners listeners_;
  asio::signal_set signals_;
  std::vector<InheritedSocket> inherited_;
  Gate watching_;
  WaitQueue stop_;
  bool stopping_ = false;
  bool stopped_cleanly_ = true;
};

// Opens, shows, closes.
Task<int> show(Worker& worker, const Config& config, Drivers drivers,
               std::string (*picture)(std::span<const std::unique_ptr<Cell>> cells)) {
  Site site(worker.home(), {&worker.home()}, config, drivers);
  CO_CHECK(co_await site.open());
  print(picture(site.cells()));
  const Result<> closed = co_await site.close();
  co_return closed ? EXIT_SUCCESS : EXIT_FAILURE;
}

// A graph may be drawn without any.
Result<> check_exports(const Config& config) {
  if (!config.exports.empty()) return ok;
  return std::unexpected(
      at_position(config.position,
                  Error(Errc::invalid_argument, "there is no export: add a table [exports.NAME]")));
}

}  // namespace

std::string attach_text(std::span<const Address> addresses, const nbd::Offers& offers) {
  std::string text = "gantry " GANTRY_VERSION " is listening on";
  for (const Address& address : addresses) text += " " + printable(address.text());
  text += "\n";
  for (const auto& [name, offer] : offers | std::views::take(exports_shown_max)) {
    text += "\nexport '" + printable(name) + "', " + format_bytes(offer->size) +
            (offer->writable ? ", writable" : ", read-only");
    if (!offer->description.empty()) text += ": " + printable(offer->description);
    text += "\n";
    for (const Address& address : addresses) {
      for (const std::string& command : attach_commands(address, name)) {
        text += "  " + command + "\n";
      }
    }
  }
  if (offers.size() > exports_shown_max) {
    text += "\n" + std::to_string(offers.size() - exports_shown_max) + " more exports:\n";
    for (const Address& address : addresses) {
      text += "  nbdinfo --list " + shell_word(nbd_uri(address, "")) + "\n";
    }
  }
  return text;
}

Task<int> serve(Worker& worker, const Config& config, Drivers drivers) {
  CO_CHECK(check_exports(config));
  Home& front = worker.home();
  MemoryAccount memory(config.limits.buffer_memory);
  CO_TRY(const std::unique_ptr<Crew> crew,
         Crew::create(config.workers, config.io_engine, front.log, memory));
  Daemon daemon(front, *crew, config, drivers);
  co_return co_await daemon.run();
}

Task<int> check(Worker& worker, const Config& config, Drivers drivers) {
  CO_CHECK(check_exports(config));
  co_return co_await show(worker, config, drivers, to_text);
}

Task<int> draw(Worker& worker, const Config& config, Drivers drivers) {
  return show(worker, config, drivers, to_dot);
}

}  // namespace app
