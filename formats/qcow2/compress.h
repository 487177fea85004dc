// compress.h - one cluster, compressed and back. Pure, and bounded whatever the bytes are: neither
// more output than a cluster nor more input than was given is looked at.
// Rules L-5, W-8 of docs/qcow2.md.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/qcow2/layout.h"

namespace formats::qcow2 {

// Fills `cluster` from the stream at the start of `data`; what follows it belongs to somebody else.
// False when the stream is broken, or gives more or less than a cluster.
bool decompress(Compression how, std::span<const std::byte> data, std::span<std::byte> cluster);

// The stream for `cluster`, unless it would not be shorter.
std::optional<std::vector<std::byte>> compress(Compression how, std::span<const std::byte> cluster);

}  // namespace formats::qcow2
