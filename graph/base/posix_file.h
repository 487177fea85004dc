// posix_file.h - a file of the kernel's. What may block is called on a thread, what the engines
// have in common inline; an engine with better means overrides what it does by them.
#pragma once

#include <algorithm>
#include <climits>
#include <memory>
#include <string>

#include "graph/base/call_threads.h"
#include "graph/base/engine.h"
#include "graph/base/file_descriptor.h"

// A file that was opened, and what is known of it from then on.
struct OpenedFile final : HandedFile {
  FileDescriptor descriptor;
  FileDescriptor locks;  // a descriptor of its own that no ring ever sees; open once it is needed
  OpenFlags flags;
  FileKind kind = FileKind::regular;
  bool is_quick = false;      // FileStatus::is_quick
  bool is_in_memory = false;  // on a tmpfs
};

// A FIFO is opened without waiting for its other end.
SysTask<OpenedFile> open_on_thread(CallThreads& threads, std::string path, OpenFlags flags);
SysTask<> remove_on_thread(CallThreads& threads, std::string path);

// What the kernel's calls want of our words.
int fallocate_bits(FallocateMode mode);
template <class Spans>
int span_count(const Spans& spans) {
  return static_cast<int>(std::min<std::size_t>(spans.size(), IOV_MAX));
}

class PosixFile : public EngineFile {
 public:
  // Lifetime: `threads` outlives the file.
  PosixFile(CallThreads& threads, OpenedFile opened)
      : threads_(threads), share_(threads.shares()), opened_(std::move(opened)) {}

  SysResult<std::size_t> read_now(std::uint64_t offset, const Buffers& out) override;
  SysResult<std::size_t> write_now(std::uint64_t offset, const ConstBuffers& data) override;

  SysTask<std::size_t> read(std::uint64_t offset, const Buffers& out) override;
  SysTask<std::size_t> write(std::uint64_t offset, const ConstBuffers& data,
                             Durability durability) override;
  SysTask<> sync() override;
  SysTask<> fallocate(FallocateMode mode, Range range) override;
  SysTask<> device_call(DeviceCall call, Range range) override;
  SysTask<> truncate(std::uint64_t size) override;
  SysTask<std::uint64_t> seek(Seek what, std::uint64_t offset) override;
  SysTask<FileStatus> status() override;
  SysTask<> will_need(Range range) override;

  SysTask<> prepare_reopen(FileAccess access) override;
  void commit_reopen() override;
  void abort_reopen() override { other_.reset(); }

  SysResult<> lock(std::uint64_t byte) override;
  SysResult<> unlock(std::uint64_t byte) override;
  SysResult<bool> is_locked(std::uint64_t byte) override;

  std::unique_ptr<HandedFile> hand_over() override {
    return std::make_unique<OpenedFile>(std::move(opened_));
  }
  SysTask<> close() override;

 protected:
  int descriptor() const { return opened_.descriptor.number(); }
  bool is_quick() const { return opened_.is_quick; }

 private:
  // On a thread, or at once where that can't take long.
  template <class Call>
  asio::awaitable<std::invoke_result_t<Call&>> call(Call function);
  std::string own_path() const;
  SysResult<> open_locks();
  SysResult<> set_lock(short type, std::uint64_t byte);

  CallThreads& threads_;
  Share share_;
  OpenedFile opened_;
  FileDescriptor other_;  // between prepare_reopen and its end
};
