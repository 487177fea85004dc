// engines.h - the ways to read and write files that there are, and the choice among them.
#pragma once

#include <asio/io_context.hpp>
#include <cstdint>
#include <memory>
#include <string_view>

#include "graph/base/engine.h"
#include "graph/base/error.h"

// automatic: io_uring where it works, else threads.
enum class EngineKind : std::uint8_t { automatic, io_uring, threads };

// As people write it: "auto", "io_uring", "threads", joined as an OptionSpec wants its choices.
inline constexpr std::string_view engine_kinds = "auto|io_uring|threads";
// Requires: `word` is one of them.
EngineKind engine_kind_of(std::string_view word);

// The engine of one worker, which alone uses it. What was taken, and why, is its name().
// Lifetime: `worker` outlives it. Errors: not_supported: io_uring is asked for and can't be had.
Result<std::unique_ptr<Engine>> make_engine(EngineKind kind, asio::io_context& worker);
