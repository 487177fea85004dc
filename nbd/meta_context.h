// meta_context.h - names of what a client can ask about a range by BLOCK_STATUS, and the queries
// that select them. Spec: proto.md, "Metadata querying", "NBD_OPT_LIST_META_CONTEXT",
// "NBD_OPT_SET_META_CONTEXT".
#pragma once

#include <cstdint>
#include <string_view>

namespace nbd {

inline constexpr std::string_view base_allocation = "base:allocation";
inline constexpr std::uint32_t base_allocation_id = 1;

enum class QueryPurpose : std::uint8_t {
  list,  // "base:" lists all contexts of its namespace
  set,   // "base:" selects nothing
};

// True when `query` names base:allocation. Unknown namespaces and leaves match nothing and are no
// error.
constexpr bool matches_base_allocation(std::string_view query, QueryPurpose purpose) {
  return query == base_allocation || (purpose == QueryPurpose::list && query == "base:");
}

}  // namespace nbd
