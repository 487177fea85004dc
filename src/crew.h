// crew.h - the workers that carry out requests, each on a thread of its own.
#pragma once

#include <memory>
#include <vector>

#include "src/worker.h"

namespace app {

class Crew {
 public:
  // As many workers as wanted; 0 means one for each processor that this process may use.
  // Lifetime: `log` and `memory` outlive the crew.
  // Errors: as Worker::create.
  static Result<std::unique_ptr<Crew>> create(std::size_t wanted, EngineKind engine, Log& log,
                                              MemoryAccount& memory);
  // Waits for everything that was started on the workers.
  ~Crew();
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  std::vector<Home*> homes() const;

 private:
  Crew() = default;
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace app
