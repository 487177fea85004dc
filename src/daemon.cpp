#include "src/daemon.h"

#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <ranges>
#include <set>
#include <vector>

#include "graph/base/wait_queue.h"
#include "src/control/server.h"
#include "src/crew.h"
#include "src/listeners.h"
#include "src/picture.h"
#include "src/reload.h"
#include "src/service_manager.h"
#include "src/signals.h"
#include "src/site.h"
#include "src/watchdog.h"

namespace app {
namespace {

// More exports than this are found by `nbdinfo --list`.
constexpr std::size_t exports_shown_max = 8;
constexpr Clock::Duration patience_max = std::chrono::hours(24 * 365);
constexpr auto leeway = std::chrono::seconds(1);  // of a stop, for what needs no time at all

void print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

// Each client and each file is one: as many as the system lets us have.
void raise_limit_of_descriptors() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);  // without it, fewer clients are served at a time
}

class Daemon final : public control::Host {
 public:
  Daemon(Home& home, const Crew& crew, const Config& config, Drivers drivers,
         std::vector<InheritedSocket> inherited)
      : home_(home),
        crew_(crew),
        config_(config),
        drivers_(drivers),
        inherited_(std::move(inherited)),
        site_(home, crew.homes(), config, drivers),
        listeners_(
            home, std::chrono::ceil<std::chrono::seconds>(config.limits.peer_timeout),
            [this](std::unique_ptr<Stream> stream) { site_.lobby().receive(std::move(stream)); }),
        control_(home, *this),
        control_listeners_(
            home, {},
            [this](std::unique_ptr<Stream> stream) { control_.receive(std::move(stream)); }),
        signals_(home.executor) {}

  Task<int> run() {
    if (!signals_.is_open()) {
      co_return failure(Errc::busy, "no descriptor is left to hear signals by");
    }
    spawn(home_.executor, watching_.enter_anyway(), watch_signals());
    Result<> served = co_await serve();
    signals_.close();
    if (starting_) starting_->cancel();
    if (watchdog_) co_await watchdog_->stop();
    co_await watching_.drained();
    if (!served) co_return std::unexpected(std::move(served).error());
    co_return stopped_cleanly_ ? EXIT_SUCCESS : EXIT_FAILURE;
  }

  Site& site() override { return site_; }
  void quit() override {
    if (stopping_) return;
    home_.log.info("a control client says quit: stopping");
    stop();
  }

 private:
  Task<> listen() {
    CO_CHECK(co_await listeners_.open(config_.listen, std::move(inherited_)));
    if (!config_.control) co_return ok;
    const std::vector<Listen> wanted{*config_.control};
    co_return co_await control_listeners_.open(wanted, {});
  }

  // Errors: nothing could be started.
  Task<> serve() {
    CO_CHECK(co_await site_.open());
    Result<> listening = ok;
    if (!stopping_) listening = co_await listen();
    started_ = true;
    if (starting_) starting_->cancel();
    if (listening && !stopping_) {
      std::set<std::string_view> engines;
      for (const Home* worker : crew_.homes()) engines.insert(worker->engine.name());
      for (const std::string_view engine : engines) {
        home_.log.info("files are read and written by " + std::string(engine));
      }
      listeners_.start();
      control_listeners_.start();
      get_ready(listeners_.addresses());
      while (!stopping_) co_await stop_.wait();
    }
    if (listening) manager_.stopping("stopping");
    co_await listeners_.stop();
    co_await control_listeners_.stop();
    patience_ =
        home_.clock.timer(2 * std::min(config_.limits.drain_timeout, patience_max) + leeway);
    spawn(home_.executor, watching_.enter_anyway(), watch_stop());
    stopped_cleanly_ = (co_await site_.close()).has_value();
    patience_->cancel();
    tell_of_the_end();
    co_await control_.stop();
    if (stopped_cleanly_ && listening) home_.log.info("stopped");
    co_return listening;
  }

  // Clients are served from here on.
  void get_ready(const std::vector<Address>& addresses) {
    if (addresses.empty()) {
      spawn(home_.executor, watching_.enter_anyway(), stop_with_the_last_client());
    } else {
      print(attach_text(addresses, *site_.lobby().offers()));
    }
    const std::size_t exports = config_.exports.size();
    status_ = std::to_string(exports) + (exports == 1 ? " export on" : " exports on");
    for (const Address& address : addresses) status_ += " " + printable(address.text());
    manager_.ready(status_);
    if (const auto limit = manager_.watchdog()) start_watchdog(*limit);
    ready_ = true;
    if (hung_up_) reload_config();
  }

  void start_watchdog(Clock::Duration limit) {
    std::vector<asio::any_io_executor> loops;
    for (const Home* worker : crew_.homes()) loops.push_back(worker->executor);
    watchdog_.emplace(home_, limit, [this] { manager_.alive(); }, std::move(loops));
    watchdog_->start();
  }

  // Nobody listens: the clients that were handed over are all there will be.
  asio::awaitable<void> stop_with_the_last_client() {
    co_await site_.lobby().empty();
    if (stopping_) co_return;
    home_.log.info("the connections that were handed over have ended: stopping");
    stop();
  }

  asio::awaitable<void> watch_signals() {
    while (const std::optional<int> number = co_await signals_.next()) {
      if (*number == SIGHUP) {
        hang_up();
      } else {
        end(*number == SIGINT ? "SIGINT" : "SIGTERM");
      }
    }
  }

  void hang_up() {
    if (stopping_) {
      home_.log.info("SIGHUP: nothing is read again, the server is stopping");
    } else if (ready_) {
      reload_config();
    } else {
      hung_up_ = true;
    }
  }

  void reload_config() {
    manager_.reloading();
    reload(config_, drivers_, home_.log, listeners_);
    manager_.ready(status_);
  }

  void end(const std::string& name) {
    if (stopping_) {
      home_.log.error(name + " again: stopped at once, what was not flushed may be lost");
      listeners_.close();  // takes the sockets' files away
      control_listeners_.close();
      std::_Exit(EXIT_FAILURE);
    }
    home_.log.info(name + ": stopping; once more stops at once");
    stop();
    if (started_) return;
    starting_ = home_.clock.timer(std::min(config_.limits.drain_timeout, patience_max) + leeway);
    spawn(home_.executor, watching_.enter_anyway(), watch_start());
  }

  // To control clients that have waited for it.
  void tell_of_the_end() {
    for (const auto& [name, offer] : *site_.lobby().offers()) {
      Json data;
      data.set("id", name);
      control_.emit("BLOCK_EXPORT_DELETED", std::move(data));
    }
  }

  void stop() {
    stopping_ = true;
    stop_.notify_all();
  }

  // A stop can't begin before all is open, and a medium that hangs may never be.
  asio::awaitable<void> watch_start() {
    if (!co_await starting_->wait() || started_) co_return;
    for (const std::string& name : site_.unopened()) {
      home_.log.error("export '" + printable(name) + "': its medium does not answer");
    }
    home_.log.error("stopped before everything was open");
    listeners_.close();
    std::_Exit(EXIT_FAILURE);
  }

  // Clients had drain-timeout, and then as long again was left for the last flush. What waits still
  // is a call of the kernel's that does not return, and nothing ends that but the end of the
  // process.
  asio::awaitable<void> watch_stop() {
    if (!co_await patience_->wait()) co_return;
    if (site_.closed()) co_return;  // it ends in this very moment
    for (const std::string& name : site_.unfinished()) {
      home_.log.error("export '" + printable(name) +
                      "': cut off, its medium does not answer; what was not flushed may be lost");
    }
    std::_Exit(EXIT_FAILURE);
  }

  Home& home_;
  const Crew& crew_;
  const Config& config_;
  const Drivers drivers_;
  std::vector<InheritedSocket> inherited_;  // until they are opened
  Site site_;
  Listeners listeners_;
  control::Server control_;
  Listeners control_listeners_;
  Signals signals_;
  ServiceManager manager_;
  std::optional<Watchdog> watchdog_;
  std::string status_;               // for the service manager
  std::unique_ptr<Timer> starting_;  // with a start that is to be stopped
  std::unique_ptr<Timer> patience_;  // with a stop
  Gate watching_;
  WaitQueue stop_;
  bool started_ = false;  // all is open, or can't be
  bool ready_ = false;
  bool hung_up_ = false;  // before it was ready
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
  raise_limit_of_descriptors();
  Home& front = worker.home();
  // before there are threads: it changes the environment
  CO_TRY(std::vector<InheritedSocket> inherited, take_inherited_sockets());
  MemoryAccount memory(config.limits.lent_memory());
  CO_TRY(const std::unique_ptr<Crew> crew,
         Crew::create(config.workers, config.io_engine, front.log, memory));
  Daemon daemon(front, *crew, config, drivers, std::move(inherited));
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
