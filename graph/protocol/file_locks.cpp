#include "graph/protocol/file_locks.h"

#include <system_error>

namespace graph {
namespace {

constexpr std::uint64_t held_base = 100;
constexpr std::uint64_t unshared_base = 200;
constexpr unsigned permission_count = 4;
constexpr unsigned unshared_shift = 8;  // within FileLocks::Bytes

constexpr std::uint64_t byte_of(unsigned bit) {
  return bit < unshared_shift ? held_base + bit : unshared_base + (bit - unshared_shift);
}
static_assert(byte_of(1) == 101 && byte_of(unshared_shift + 1) == 201);

std::string permission_name(unsigned i) { return Permissions::from_bits(1U << i).text(); }

}  // namespace

FileLocks::Bytes FileLocks::bytes_of(Access own) {
  Permissions shared = own.shared;
  if (own.taken.has(Permission::write)) shared = shared.without(Permission::write);
  const unsigned unshared = Permissions::all().without(shared).bits();
  return static_cast<Bytes>(own.taken.bits() | unshared << unshared_shift);
}

std::optional<FileLocks::Refusal> FileLocks::prepare(EngineFile& file, Access own) {
  before_ = held_;
  wanted_ = bytes_of(own);
  const auto refuse = [&](int error, std::string message) {
    abort(file);
    return Refusal{error, std::move(message)};
  };
  for (unsigned bit = 0; bit < unshared_shift + permission_count; ++bit) {
    const auto mask = static_cast<Bytes>(1U << bit);
    if ((wanted_ & mask) == 0 || (held_ & mask) != 0) continue;
    if (const SysResult<> locked = file.lock(byte_of(bit)); !locked) {
      return refuse(locked.error().number, "Failed to lock byte " + std::to_string(byte_of(bit)));
    }
    held_ = static_cast<Bytes>(held_ | mask);
  }
  for (unsigned i = 0; i < permission_count; ++i) {
    for (const bool shared : {false, true}) {  // whom others keep out, then whom we do
      const unsigned own_bit = shared ? unshared_shift + i : i;
      if ((wanted_ & 1U << own_bit) == 0) continue;
      const SysResult<bool> objects = file.is_locked((shared ? held_base : unshared_base) + i);
      if (objects && !*objects) continue;
      return refuse(objects ? 0 : objects.error().number, std::string("Failed to get ") +
                                                              (shared ? "shared " : "") + '"' +
                                                              permission_name(i) + "\" lock");
    }
  }
  return std::nullopt;
}

void FileLocks::unlock(EngineFile& file, Bytes bytes) {
  for (unsigned bit = 0; bit < unshared_shift + permission_count; ++bit) {
    if ((bytes & 1U << bit) == 0) continue;
    // what can't be unlocked goes with the descriptor
    [[maybe_unused]] const SysResult<> unlocked = file.unlock(byte_of(bit));
  }
  held_ = static_cast<Bytes>(held_ & ~bytes);
}

void FileLocks::commit(EngineFile& file) {
  unlock(file, static_cast<Bytes>(held_ & ~wanted_));
  before_ = held_;
}

void FileLocks::abort(EngineFile& file) {
  unlock(file, static_cast<Bytes>(held_ & ~before_));
  wanted_ = held_;
}

void FileLocks::release_all(EngineFile& file) {
  unlock(file, held_);
  before_ = wanted_ = 0;
}

}  // namespace graph
