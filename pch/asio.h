// asio.h - precompiled: Asio costs seconds in every file that includes it otherwise.
// A guard, not #pragma once: GCC warns of that in a file which it precompiles.
#ifndef GANTRY_PCH_ASIO_H
#define GANTRY_PCH_ASIO_H

#include <algorithm>
#include <array>
#include <asio.hpp>
#include <bit>
#include <cassert>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <expected>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#endif
