// host_file.h - what a file and a block device of the host have in common as nodes. All they ask of
// the system goes through the engine of their worker.
//
// - size() is what the node believes: the size at open, moved by its own writes and resizes. What
//   ends earlier was cut by somebody else; reading there is an I/O error, not zeroes.
// - What the page cache can do at once is done inside the call, without a coroutine
//   (docs/architecture.md, "The life of a request").
// - A failed fsync means that written data is gone, and the kernel tells only once: the node has
//   failed until it is opened again.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "graph/driver.h"
#include "graph/protocol/file_locks.h"
#include "graph/protocol/host_open.h"

namespace graph {

class HostFile : public Protocol {
 public:
  std::uint64_t own_size() const override { return size_; }
  std::string detail() const override { return settings_.filename; }
  std::string filename() const override { return settings_.filename; }
  Task<std::uint64_t> allocated_size() override;
  Limits own_limits() const override;

  Task<> read(std::uint64_t offset, const Buffers& out) override;
  Task<> write(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) override;
  Task<> flush_to_disk() override;
  Task<> prefetch(Range range) override;

  Task<> before_gain(Permissions gained) override;
  Task<> before_lose(Permissions lost) override;
  Result<> prepare_access(Access own) override;
  void commit_access() override;
  void abort_access() override;
  void leave_worker() override;
  void enter_worker() override;
  Task<> close() override;

 protected:
  explicit HostFile(HostOpened opened);

  // Moves all of it, in as many calls as it takes. What is written past `end` is padding, and no
  // part of the content.
  Task<> read_rest(std::uint64_t offset, const Buffers& out, std::size_t done);
  Task<> write_all(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags,
                   std::size_t done, std::uint64_t end);
  Task<> sync();

  // With O_DIRECT, a write that ends with the content and on no whole unit.
  virtual Task<> write_tail(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags);
  // The error of reading or writing, or a better one that takes asking to find. Always a failure.
  virtual Task<> judged(Error error) { return failed(std::move(error)); }

  EngineFile& file() const { return *file_; }
  const FileStatus& status_at_open() const { return status_; }
  std::uint32_t unit() const { return unit_; }
  bool has_failed() const { return failed_; }
  void set_size(std::uint64_t size) {
    size_ = size;
    refresh_size();
  }
  // Of this driver: "disk0: file: what".
  Error blamed(Errc code, std::uint64_t offset, const std::string& what) const;
  Error system_fault(Errno error, std::uint64_t offset, std::string_view what) const;
  Error lost_writes() const;

  Gate writes_;  // those that the engine does; closed while the size is set

 private:
  bool may_write_now(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) const;
  void believe(std::uint64_t end) {
    if (end > size_) set_size(end);
  }
  asio::awaitable<void> see_growth(std::uint64_t end);
  Task<> read_tail(std::uint64_t offset, const Buffers& out);
  Task<> write_rest(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags,
                    std::size_t done);
  Error cut_short(std::uint64_t offset) const;
  void fail_for_good(std::string_view why);

  const HostSettings settings_;
  std::unique_ptr<EngineFile> file_;
  std::unique_ptr<HandedFile> handed_;  // between two workers
  const FileStatus status_;
  std::uint64_t size_;        // bytes
  const std::uint32_t unit_;  // of offsets, lengths and memory; 1 without O_DIRECT
  bool reads_now_;
  bool writes_now_;
  Clock::Time slow_until_{};
  bool failed_ = false;
  FileAccess access_ = settings_.access;
  FileAccess next_access_ = settings_.access;
  bool locks_work_ = true;
  FileLocks locks_;
};

// "512 bytes at 4096"
std::string in_words(Range range);

}  // namespace graph
