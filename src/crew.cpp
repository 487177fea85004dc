#include "src/crew.h"

#include <sched.h>

#include <algorithm>

namespace app {
namespace {

std::size_t processors() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 1;
  return static_cast<std::size_t>(std::max(1, CPU_COUNT(&allowed)));
}

}  // namespace

Result<std::unique_ptr<Crew>> Crew::create(std::size_t wanted, EngineKind engine, Log& log,
                                           MemoryAccount& memory) {
  std::unique_ptr<Crew> crew(new Crew());
  if (wanted == 0) wanted = processors();
  while (crew->workers_.size() < wanted) {
    TRY(std::unique_ptr<Worker> worker, Worker::create(log, engine, &memory));
    crew->workers_.push_back(std::move(worker));
  }
  // only now: all have their branch of the memory
  for (std::size_t i = 0; i < wanted; ++i) {
    crew->workers_[i]->start("worker " + std::to_string(i));
  }
  return crew;
}

Crew::~Crew() {
  for (const auto& worker : workers_) worker->stop();
}

std::vector<Home*> Crew::homes() const {
  std::vector<Home*> homes;
  for (const auto& worker : workers_) homes.push_back(&worker->home());
  return homes;
}

}  // namespace app
