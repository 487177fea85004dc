// site.h - what a configuration describes, alive: its cells, spread over the workers, and the lobby
// where clients choose an export. It lives on the front, the thread that also listens and hears
// signals, and touches no cell but through the worker on which that cell lives. Knows no sockets
// and no signals.
#pragma once

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
  // Nobody is let in any more; when visitors have left, every cell closes, each at its own pace.
  // Errors: the first one, after all has been done; each is logged.
  Task<> close();
  // While close() has not returned: the exports of the cells that it waits for.
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

  nbd::Lobby& lobby() { return lobby_; }
  const std::vector<std::unique_ptr<Cell>>& cells() const { return cells_; }

 private:
  struct Place;     // of a cell: where it is and who is there
  struct Newcomer;  // a client that has agreed on an export
  void deliver(std::unique_ptr<Stream> stream, nbd::Session session, nbd::Ticket ticket);
  void bring(Place& place, Newcomer newcomer);
  Task<Gate::Pass> enter(Cell& cell);
  asio::awaitable<void> move(Place& place, std::size_t worker);
  asio::awaitable<void> close_cell(Place& place, Result<>& first);

  Home& front_;
  const std::vector<Home*> workers_;
  std::vector<std::size_t> clients_;  // of each worker
  std::vector<std::unique_ptr<Cell>> cells_;
  std::vector<std::unique_ptr<Place>> places_;  // one for each cell
  nbd::Lobby lobby_;
  Gate moving_;   // a pass for each cell on its way to another worker
  Gate closing_;  // a pass for each cell that is being closed
};

}  // namespace app
