// site.h - what a configuration describes, alive: its cells, spread over the workers, and the lobby
// where clients choose an export. It lives on the front, the thread that also listens and hears
// signals, and touches no cell but through the worker on which that cell lives. Knows no sockets
// and no signals.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "nbd/lobby.h"
#include "src/cell.h"

namespace app {

class Site {
 public:
  // Lifetime: `front`, the workers, `config` and the drivers outlive the site.
  // Requires: at least one worker.
  Site(Home& front, std::vector<Home*> workers, const Config& config, Drivers drivers);
  ~Site();
  Site(const Site&) = delete;
  Site& operator=(const Site&) = delete;

  // Opens all nodes and makes the exports.
  // Errors: the first thing that does not work, with its position; everything is closed again then.
  Task<> open();
  // Nobody is let in any more; then every cell closes, each at its own pace, when its visitors have
  // left.
  // Errors: the first one, after all has been done; each is logged.
  Task<> close();
  // While open() has not returned: the exports of the cell that it waits for.
  std::vector<std::string> unopened() const;
  // The same of close(), which waits for several at a time.
  std::vector<std::string> unfinished() const;
  bool closed() const;

  // Runs `work`, which is about `cell`, on the worker where that lives, and stays for so long.
  // Errors: shutting_down once close() has begun; else what `work` says.
  // Lifetime: as of run_on().
  template <class T>
  Task<T> visit(Cell& cell, Task<T> work) {
    CO_TRY(const Gate::Pass visitor, co_await enter(cell));
    co_return co_await run_on(cell.home().executor, std::move(work));
  }

  // What the cell serves has changed: new clients are told so.
  // Errors: shutting_down. Lifetime: as of run_on().
  Task<> republish(Cell& cell);
  // Exports that `snapshots` of a configured export has brought, and which.
  std::map<std::string, const ExportConfig*> snapshot_exports() const;

  nbd::Lobby& lobby() { return lobby_; }
  const std::vector<std::unique_ptr<Cell>>& cells() const { return cells_; }

 private:
  struct Place;    // of a cell: where it is and who is there
  class Newcomer;  // a client that has agreed on an export
  void deliver(std::unique_ptr<Stream> stream, nbd::Session session, nbd::Ticket ticket);
  void bring(std::shared_ptr<Newcomer> newcomer);
  Task<Gate::Pass> enter(Cell& cell);
  Place& place_of(const Cell& cell) const;
  Task<> learn(Place& place);
  void publish();
  asio::awaitable<void> move(Place& place);
  void watch_arrival_of(std::shared_ptr<Newcomer> newcomer);
  asio::awaitable<void> watch_arrivals();
  void give_up(Newcomer& newcomer);
  asio::awaitable<void> close_cell(Place& place, Result<>& first);

  Home& front_;
  const std::vector<Home*> workers_;
  const Clock::Duration arrival_timeout_;  // from the reply to GO to the worker; 0: none
  std::vector<std::size_t> clients_;       // of each worker, on their way to it, too
  std::vector<std::unique_ptr<Cell>> cells_;
  std::vector<std::unique_ptr<Place>> places_;  // one for each cell
  std::map<std::string, Place*, std::less<>> by_export_;
  const Place* opening_ = nullptr;
  std::deque<std::shared_ptr<Newcomer>> arriving_;  // by their deadlines; some have arrived
  std::unique_ptr<Timer> next_deadline_;
  nbd::Lobby lobby_;
  Gate watching_;  // a pass for who watches arrivals
  Gate closing_;   // a pass for each cell that is being closed
};

}  // namespace app
