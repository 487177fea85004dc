#include "graph/base/engines.h"

#include "graph/base/thread_engine.h"
#include "graph/base/uring_engine.h"

EngineKind engine_kind_of(std::string_view word) {
  if (word == "io_uring") return EngineKind::io_uring;
  return word == "threads" ? EngineKind::threads : EngineKind::automatic;
}

Result<std::unique_ptr<Engine>> make_engine(EngineKind kind, asio::io_context& worker) {
  if (kind == EngineKind::threads) return make_thread_engine();
  auto ring = make_uring_engine(worker);
  if (ring) return ring;
  if (kind == EngineKind::automatic) return make_thread_engine(ring.error().message);
  Error error = std::move(ring).error();
  error.message = "io-engine = \"io_uring\" can't be had: " + error.message +
                  "; \"auto\" or \"threads\" works here";
  return std::unexpected(std::move(error));
}
