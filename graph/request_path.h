// request_path.h - what lies between an edge and a node whose limits are not met by a request:
// padding with read-modify-write, splitting, fall-backs. Rules, F-5, F-6, Z-1 to Z-5 of
// docs/architecture.md. Every function here trusts that the edge has checked range and permission.
#pragma once

#include "graph/edge.h"

namespace graph::request_path {

Task<> read(Node& node, std::uint64_t offset, const Buffers& out);
Task<> write(Node& node, std::uint64_t offset, const ConstBuffers& data, WriteFlags flags);
Task<> write_zeroes(Node& node, Range range, ZeroFlags flags);
Task<> discard(Node& node, Range range);
Task<> resize(Node& node, std::uint64_t size);

}  // namespace graph::request_path
