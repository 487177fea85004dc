// probe.h - what a file looks like, by its magic numbers. For people at the command line only: the
// format of an export in a config file is never guessed, since a client of a raw image can write
// any magic number into it.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace app {

inline constexpr std::size_t probe_head_size = 4096;  // bytes from the start that are looked at
inline constexpr std::size_t probe_tail_size = 512;   // and from the end

// The name of the format, "raw" when it is none that we know. Files may be shorter than what is
// looked at.
std::string_view probe_format(std::span<const std::byte> head, std::span<const std::byte> tail);

}  // namespace app
