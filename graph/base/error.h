// error.h - how every operation says that it failed: a closed set of codes, and a sentence for the
// operator.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <utility>

// Chosen by what the caller can do about it (docs/architecture.md, "Errors").
enum class Errc : std::uint8_t {
  out_of_range,  // outside the view or node; never an I/O error, never counted or voted on as one
  io_error,      // the medium failed
  no_space,      // room is missing; may succeed later
  read_only,     // the export, view or node can't be written
  permission_denied,  // the system or another user of the image forbids it
  not_supported,      // control flow: the generic path falls back, or tells the client
  invalid_argument,   // the caller's fault
  corrupt,            // an image contradicts itself
  busy,               // held by somebody else
  timed_out,
  canceled,
  shutting_down,
  connection_lost,
};

std::string_view to_string(Errc code);

struct Error {
  Errc code;
  std::string node;          // where the fact is known, "" outside the graph
  std::uint64_t offset = 0;  // of the first byte that failed, in bytes of what the caller addressed
  std::string message;       // what the operator reads, made once, where the fact is known

  Error(Errc failure, std::string text) : code(failure), message(std::move(text)) {}
  Error(Errc failure, std::string where, std::uint64_t at, std::string text)
      : code(failure), node(std::move(where)), offset(at), message(std::move(text)) {}

  // The same failure, seen by a caller for whom the byte that failed lies at `at`.
  Error at(std::uint64_t at_offset) && {
    offset = at_offset;
    return std::move(*this);
  }
};

// The code that a failed system call stands for: ENOSPC, EDQUOT, EFBIG are no_space, EROFS
// read_only, ...
Errc errc_from_errno(int number);
// "who: Input/output error" with the code of `number`.
Error error_from_errno(int number, std::string_view who);

template <class T = void>
using Result = std::expected<T, Error>;

// What a Task<> returns when all went well: `co_return {}` does not compile there.
inline const Result<> ok;

inline std::unexpected<Error> failure(Errc code, std::string message) {
  return std::unexpected(Error(code, std::move(message)));
}

#define GANTRY_JOIN2(a, b) a##b
#define GANTRY_JOIN(a, b) GANTRY_JOIN2(a, b)
// Two statements, not a statement expression: GCC 12 fails on `({ co_await ... })`.
#define GANTRY_TRY(result, decl, expr, leave)                    \
  auto result = (expr);                                          \
  if (!result) leave std::unexpected(std::move(result).error()); \
  decl = std::move(*result)

// TRY(int n, f()): declares n, or returns f's error. CO_TRY: the same in a coroutine.
#define TRY(decl, expr) GANTRY_TRY(GANTRY_JOIN(result_, __LINE__), decl, expr, return)
#define CO_TRY(decl, expr) GANTRY_TRY(GANTRY_JOIN(result_, __LINE__), decl, expr, co_return)
// CHECK(f()): leaves the function with f's error, if any. CO_CHECK(co_await f()): the coroutine.
#define CHECK(expr) \
  if (auto checked = (expr); !checked) return std::unexpected(std::move(checked).error())
#define CO_CHECK(expr) \
  if (auto checked = (expr); !checked) co_return std::unexpected(std::move(checked).error())
