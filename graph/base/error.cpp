#include "graph/base/error.h"

#include <cerrno>
#include <system_error>

std::string_view to_string(Errc code) {
  switch (code) {
    case Errc::out_of_range:
      return "out of range";
    case Errc::io_error:
      return "I/O error";
    case Errc::no_space:
      return "no space left";
    case Errc::read_only:
      return "read-only";
    case Errc::permission_denied:
      return "permission denied";
    case Errc::not_supported:
      return "not supported";
    case Errc::invalid_argument:
      return "invalid argument";
    case Errc::corrupt:
      return "corrupt";
    case Errc::busy:
      return "busy";
    case Errc::timed_out:
      return "timed out";
    case Errc::canceled:
      return "canceled";
    case Errc::shutting_down:
      return "shutting down";
    case Errc::connection_lost:
      return "connection lost";
  }
  return "unknown error";
}

Errc errc_from_errno(int number) {
  switch (number) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return Errc::no_space;
    case EROFS:
      return Errc::read_only;
    case EACCES:
    case EPERM:
      return Errc::permission_denied;
    case EOPNOTSUPP:
    case ENOSYS:
      return Errc::not_supported;
    case EINVAL:
      return Errc::invalid_argument;
    case EBUSY:
    case ETXTBSY:
      return Errc::busy;
    case ETIMEDOUT:
      return Errc::timed_out;
    case ECANCELED:
      return Errc::canceled;
    case EPIPE:
    case ECONNRESET:
      return Errc::connection_lost;
    default:
      return Errc::io_error;
  }
}

Error error_from_errno(int number, std::string_view who) {
  return {errc_from_errno(number),
          std::string(who) + ": " + std::generic_category().message(number)};
}
