#include "nbd/request.h"

namespace nbd {
namespace {

bool writes(Command command) {
  return command == Command::write || command == Command::trim || command == Command::write_zeroes;
}

// The flags that a command may carry; FUA goes with every one (statement 109), some only where they
// were advertised.
unsigned flags_of(Command command, const Session& session) {
  using namespace command_flag;
  const auto advertised = [&](std::uint16_t flag) { return (session.flags & flag) != 0; };
  switch (command) {
    case Command::read:
      return fua | (advertised(transmission_flag::send_df) ? unsigned{df} : 0);
    case Command::write_zeroes:
      return fua | no_hole |
             (advertised(transmission_flag::send_fast_zero) ? unsigned{fast_zero} : 0);
    case Command::block_status:
      return fua | req_one;
    case Command::write:
    case Command::disconnect:
    case Command::flush:
    case Command::trim:
    case Command::cache:
      break;
  }
  return fua;
}

bool known(Command command) {
  return static_cast<unsigned>(command) <= static_cast<unsigned>(Command::block_status);
}

Verdict check_length(const Request& request, const Session& session) {
  const std::uint64_t length = request.range.length;
  switch (request.command) {
    case Command::read:
      if (session.structured_replies) {
        const bool one_chunk = request.has(command_flag::df);
        if (length > (one_chunk ? payload_max : read_stream_max)) {
          return {WireError::eoverflow, "the read is too long"};
        }
      } else if (length > payload_max) {
        return {WireError::einval, "the read is longer than the maximum payload"};
      }
      return {};
    case Command::write:
      if (length > payload_max) {
        return {WireError::einval, "the write is longer than the maximum payload"};
      }
      return {};
    case Command::block_status:
      if (length == 0) return {WireError::einval, "need non-zero length"};
      return {};
    default:
      return {};
  }
}

std::string_view name_of(Command command) {
  switch (command) {
    case Command::read:
      return "read";
    case Command::write:
      return "write";
    case Command::disconnect:
      return "disconnect";
    case Command::flush:
      return "flush";
    case Command::trim:
      return "trim";
    case Command::cache:
      return "cache";
    case Command::write_zeroes:
      return "write zeroes";
    case Command::block_status:
      return "block status";
  }
  return "unknown";
}

}  // namespace

std::string describe(const Request& request) {
  return std::string(name_of(request.command)) + " " + std::to_string(request.range.length) +
         " bytes at " + std::to_string(request.range.offset) + ", cookie " +
         std::to_string(request.cookie);
}

Verdict check(const Request& request, const Session& session) {
  const Command command = request.command;
  if (!known(command)) return {WireError::einval, "unknown command"};
  if ((request.flags & ~flags_of(command, session)) != 0) {
    return {WireError::einval, "unknown flag, or one that does not go with the command"};
  }
  if (command == Command::block_status && !session.base_allocation) {
    return {WireError::einval, "no metadata context was negotiated"};
  }
  const graph::BlockBackend& view = session.item->view();
  if (writes(command) && !view.writable()) return {WireError::eperm, "the export is read-only"};
  if (command == Command::flush) return {};  // statement 155: its range means nothing
  const Range range = request.range;
  if (!range.lies_within(view.size())) {
    const bool full = command == Command::write || command == Command::write_zeroes;
    return {full ? WireError::enospc : WireError::einval,
            "operation past EOF; From: " + std::to_string(range.offset) + ", Len: " +
                std::to_string(range.length) + ", Size: " + std::to_string(view.size())};
  }
  if (!is_aligned(range.offset | range.length, session.minimum_block)) {
    return {WireError::einval,
            "not a multiple of the minimum block size " + std::to_string(session.minimum_block)};
  }
  return check_length(request, session);
}

WireError wire_error(Errc code, const Request& request) {
  switch (code) {
    case Errc::out_of_range:
      return request.command == Command::write || request.command == Command::write_zeroes
                 ? WireError::enospc
                 : WireError::einval;
    case Errc::no_space:
      return WireError::enospc;
    case Errc::read_only:
    case Errc::permission_denied:
      return WireError::eperm;
    case Errc::not_supported:
      return request.has(command_flag::fast_zero) ? WireError::enotsup : WireError::einval;
    case Errc::invalid_argument:
      return WireError::einval;
    case Errc::canceled:
    case Errc::shutting_down:
      return WireError::eshutdown;
    case Errc::io_error:
    case Errc::corrupt:
    case Errc::busy:
    case Errc::timed_out:
    case Errc::connection_lost:
      break;
  }
  return WireError::eio;
}

}  // namespace nbd
