// wire.h - the bytes of the NBD protocol: numbers and fixed-size messages, nothing that acts.
// Spec: proto.md, "Values", and the section named at each struct.
#pragma once

#include <cstdint>
#include <type_traits>

#include "graph/base/bytes.h"

namespace nbd {

inline constexpr std::uint64_t greeting_magic = 0x4e42444d41474943;  // "NBDMAGIC"
inline constexpr std::uint64_t option_magic = 0x49484156454f5054;    // "IHAVEOPT"
inline constexpr std::uint64_t option_reply_magic = 0x0003e889045565a9;
inline constexpr std::uint32_t request_magic = 0x25609513;
inline constexpr std::uint32_t simple_reply_magic = 0x67446698;
inline constexpr std::uint32_t structured_reply_magic = 0x668e33ef;

// Handshake flags, ours and the client's.
inline constexpr std::uint16_t flag_fixed_newstyle = 1 << 0;
inline constexpr std::uint16_t flag_no_zeroes = 1 << 1;

enum class Option : std::uint32_t {
  export_name = 1,
  abort = 2,
  list = 3,
  starttls = 5,
  info = 6,
  go = 7,
  structured_reply = 8,
  list_meta_context = 9,
  set_meta_context = 10,
  extended_headers = 11,
};

enum class OptionReply : std::uint32_t {
  ack = 1,
  server = 2,
  info = 3,
  meta_context = 4,
  error_unsupported = 0x80000001,
  error_policy = 0x80000002,
  error_invalid = 0x80000003,
  error_platform = 0x80000004,
  error_tls_required = 0x80000005,
  error_unknown = 0x80000006,
  error_shutdown = 0x80000007,
  error_block_size_required = 0x80000008,
  error_too_big = 0x80000009,
};

enum class InfoType : std::uint16_t { export_size = 0, name = 1, description = 2, block_size = 3 };

// "Transmission flags"
namespace transmission_flag {
inline constexpr std::uint16_t has_flags = 1 << 0;
inline constexpr std::uint16_t read_only = 1 << 1;
inline constexpr std::uint16_t send_flush = 1 << 2;
inline constexpr std::uint16_t send_fua = 1 << 3;
inline constexpr std::uint16_t rotational = 1 << 4;
inline constexpr std::uint16_t send_trim = 1 << 5;
inline constexpr std::uint16_t send_write_zeroes = 1 << 6;
inline constexpr std::uint16_t send_df = 1 << 7;
inline constexpr std::uint16_t can_multi_conn = 1 << 8;
inline constexpr std::uint16_t send_resize = 1 << 9;
inline constexpr std::uint16_t send_cache = 1 << 10;
inline constexpr std::uint16_t send_fast_zero = 1 << 11;
}  // namespace transmission_flag

enum class Command : std::uint16_t {
  read = 0,
  write = 1,
  disconnect = 2,
  flush = 3,
  trim = 4,
  cache = 5,
  write_zeroes = 6,
  block_status = 7,
};

// "Command flags"
namespace command_flag {
inline constexpr std::uint16_t fua = 1 << 0;
inline constexpr std::uint16_t no_hole = 1 << 1;
inline constexpr std::uint16_t df = 1 << 2;
inline constexpr std::uint16_t req_one = 1 << 3;
inline constexpr std::uint16_t fast_zero = 1 << 4;
}  // namespace command_flag

// "Error values": the only ones that may stand on the wire.
enum class WireError : std::uint32_t {
  none = 0,
  eperm = 1,
  eio = 5,
  enomem = 12,
  einval = 22,
  enospc = 28,
  eoverflow = 75,
  enotsup = 95,
  eshutdown = 108,
};

enum class Chunk : std::uint16_t {
  none = 0,
  offset_data = 1,
  offset_hole = 2,
  block_status = 5,
  error = 0x8001,
  error_offset = 0x8002,
};
inline constexpr std::uint16_t chunk_flag_done = 1 << 0;

// "base:allocation metadata context"
inline constexpr std::uint32_t state_hole = 1 << 0;
inline constexpr std::uint32_t state_zero = 1 << 1;

struct Greeting {  // "Newstyle negotiation"
  Be<std::uint64_t> magic = greeting_magic;
  Be<std::uint64_t> option_magic = nbd::option_magic;
  Be<std::uint16_t> flags;
};
static_assert(sizeof(Greeting) == 18);

struct OptionHeader {  // "Newstyle negotiation"
  Be<std::uint64_t> magic;
  Be<Option> option;
  Be<std::uint32_t> length;  // bytes of data that follow
};
static_assert(sizeof(OptionHeader) == 16);

struct OptionReplyHeader {  // "Fixed newstyle negotiation"
  Be<std::uint64_t> magic = option_reply_magic;
  Be<Option> option;
  Be<OptionReply> type;
  Be<std::uint32_t> length;  // bytes of data that follow
};
static_assert(sizeof(OptionReplyHeader) == 20);

struct ExportNameReply {   // "NBD_OPT_EXPORT_NAME"; 124 zeroes follow unless both sides said
                           // no_zeroes
  Be<std::uint64_t> size;  // bytes
  Be<std::uint16_t> flags;
};
static_assert(sizeof(ExportNameReply) == 10);
inline constexpr std::size_t export_name_padding = 124;

struct InfoExport {  // "NBD_INFO_EXPORT"
  Be<InfoType> type = InfoType::export_size;
  Be<std::uint64_t> size;  // bytes
  Be<std::uint16_t> flags;
};
static_assert(sizeof(InfoExport) == 12);

struct InfoBlockSize {  // "NBD_INFO_BLOCK_SIZE"; all bytes
  Be<InfoType> type = InfoType::block_size;
  Be<std::uint32_t> minimum;
  Be<std::uint32_t> preferred;
  Be<std::uint32_t> payload_max;
};
static_assert(sizeof(InfoBlockSize) == 14);

struct RequestHeader {  // "Request message"
  Be<std::uint32_t> magic;
  Be<std::uint16_t> flags;
  Be<Command> command;
  Be<std::uint64_t> cookie;  // echoed, never interpreted
  Be<std::uint64_t> offset;  // bytes
  Be<std::uint32_t> length;  // bytes
};
static_assert(sizeof(RequestHeader) == 28 && alignof(RequestHeader) == 1);
static_assert(std::is_trivially_copyable_v<RequestHeader>);

struct SimpleReply {  // "Simple reply message"
  Be<std::uint32_t> magic = simple_reply_magic;
  Be<WireError> error;
  Be<std::uint64_t> cookie;
};
static_assert(sizeof(SimpleReply) == 16);

struct ChunkHeader {  // "Structured reply chunk message"
  Be<std::uint32_t> magic = structured_reply_magic;
  Be<std::uint16_t> flags;
  Be<Chunk> type;
  Be<std::uint64_t> cookie;
  Be<std::uint32_t> length;  // bytes that follow
};
static_assert(sizeof(ChunkHeader) == 20);

struct HoleChunk {  // "NBD_REPLY_TYPE_OFFSET_HOLE"
  Be<std::uint64_t> offset;
  Be<std::uint32_t> length;
};
static_assert(sizeof(HoleChunk) == 12);

struct ErrorChunk {  // "NBD_REPLY_TYPE_ERROR"; text follows, then for error_offset a 64-bit offset
  Be<WireError> error;
  Be<std::uint16_t> text_length;
};
static_assert(sizeof(ErrorChunk) == 6);

struct StatusDescriptor {  // "NBD_REPLY_TYPE_BLOCK_STATUS"
  Be<std::uint32_t> length;
  Be<std::uint32_t> flags;
};
static_assert(sizeof(StatusDescriptor) == 8);

}  // namespace nbd
