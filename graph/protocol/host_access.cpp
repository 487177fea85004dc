// host_access.cpp - who uses a file of the host: opened again for writing, locked, closed.
#include <cerrno>
#include <system_error>

#include "graph/protocol/host_file.h"

namespace graph {
namespace {

constexpr Permissions writing =
    Permission::write | Permission::write_unchanged | Permission::resize;

}  // namespace

// P-8
Task<> HostFile::before_gain(Permissions gained) {
  if (!gained.has_any(writing) || access_ == FileAccess::read_write) co_return ok;
  SysResult<> done = co_await file_->prepare_reopen(FileAccess::read_write);
  while (was_interrupted(done)) done = co_await file_->prepare_reopen(FileAccess::read_write);
  if (!done) {
    co_return std::unexpected(
        system_fault(done.error(), 0, "can't open '" + settings_.filename + "' for writing"));
  }
  next_access_ = FileAccess::read_write;
  co_return ok;
}

Task<> HostFile::before_lose(Permissions lost) {
  if (!common().auto_read_only || !lost.has_any(writing) || access_ == FileAccess::read_only ||
      cumulative_access().taken.without(lost).has_any(writing)) {
    co_return ok;
  }
  // the last chance to learn that something was lost; the node tells whoever flushes next
  (void)co_await flush_to_disk();
  const SysResult<> done = co_await file_->prepare_reopen(FileAccess::read_only);
  if (done) next_access_ = FileAccess::read_only;
  co_return ok;  // else it stays open for writing, which does no harm
}

namespace {

// What the system is short of for the moment, which says nothing of the file.
bool is_shortage(int error) { return error == EMFILE || error == ENFILE || error == ENOMEM; }

}  // namespace

Result<> HostFile::prepare_access(Access own) {
  if (settings_.locking == Locking::off || common().force_share || !locks_work_) return ok;
  const auto refused = locks_.prepare(*file_, own);
  if (!refused) return ok;
  if (refused->error == 0) {
    return std::unexpected(blamed(
        Errc::busy, 0,
        refused->message + ". Is another process using the image [" + settings_.filename + "]?"));
  }
  if (settings_.locking == Locking::automatic && !is_shortage(refused->error)) {
    locks_work_ = false;
    locks_.release_all(*file_);
    home().log.warning(name() + ": " + std::string(driver().name) + ": no locks on '" +
                       settings_.filename + "' (" +
                       std::generic_category().message(refused->error) +
                       "): other processes are not kept away");
    return ok;
  }
  return std::unexpected(system_fault(Errno{refused->error}, 0, refused->message));
}

void HostFile::commit_access() {
  locks_.commit(*file_);
  file_->commit_reopen();
  access_ = next_access_;
}

void HostFile::abort_access() {
  locks_.abort(*file_);
  file_->abort_reopen();
  next_access_ = access_;
}

Task<> HostFile::close() {
  locks_.release_all(*file_);
  const SysResult<> done = co_await file_->close();
  // interrupted: closed nevertheless, as Linux does it
  if (!done && !was_interrupted(done)) {
    co_return std::unexpected(system_fault(done.error(), 0, "close"));
  }
  if (failed_) co_return std::unexpected(lost_writes());
  co_return ok;
}

}  // namespace graph
