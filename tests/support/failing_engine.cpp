#include "tests/support/failing_engine.h"

#include <algorithm>
#include <asio/co_spawn.hpp>
#include <cassert>
#include <cerrno>
#include <exception>
#include <utility>

namespace test {

const std::vector<Fault> all_faults{
    {"EIO", EIO}, {"ENOSPC", ENOSPC}, {"EINTR", EINTR}, {"ShortCount", 0}};

bool Fault::is_harmless() const { return error == 0 || error == EINTR; }
std::ostream& operator<<(std::ostream& out, const Fault& fault) { return out << fault.name; }

void FailingEngine::fail(std::size_t nth, const Fault& fault) {
  calls_ = 0;
  fails_at_ = nth;
  fault_ = fault;
  failed_.clear();
}

void FailingEngine::release() {
  hanging_ = false;
  released_.notify_all();
}

FailingEngine::Verdict FailingEngine::judge(const char* call) {
  if (++calls_ != fails_at_) return {};
  failed_ = call;
  if (fault_.error == 0) return {std::nullopt, true};
  return {Errno{fault_.error}, false};
}

asio::awaitable<FailingEngine::Verdict> FailingEngine::begin(const char* call) {
  const Verdict verdict = judge(call);
  if (hanging_) ++hung_;
  while (hanging_) co_await released_.wait();
  co_return verdict;
}

template <class T>
SysTask<T> FailingEngine::pass(SysTask<T> task) {
  if (loop_ == nullptr) co_return co_await std::move(task);
  std::optional<SysResult<T>> result;
  const auto keep = [](SysTask<T> inner,
                       std::optional<SysResult<T>>& out) -> asio::awaitable<void> {
    out.emplace(co_await std::move(inner));
  };
  auto kept = keep(std::move(task), result);
  asio::co_spawn(*loop_, std::move(kept),
                 [](const std::exception_ptr& thrown) { assert(!thrown); });
  loop_->restart();
  loop_->run();
  co_return *std::move(result);
}

class FailingFile final : public EngineFile {
 public:
  std::unique_ptr<HandedFile> hand_over() override { std::abort(); }  // it belongs to one worker
  FailingFile(FailingEngine& engine, std::unique_ptr<EngineFile> real)
      : engine_(engine), real_(std::move(real)) {
    ++engine_.open_files_;
  }

  SysResult<std::size_t> read_now(std::uint64_t offset, const Buffers& out) override {
    const auto verdict = engine_.judge("read_now");
    if (verdict.error) return std::unexpected(*verdict.error);
    if (engine_.never_now_ || engine_.hanging_) return std::unexpected(Errno{EAGAIN});
    return real_->read_now(offset, verdict.is_short ? half(out) : out);
  }
  SysResult<std::size_t> write_now(std::uint64_t offset, const ConstBuffers& data) override {
    const auto verdict = engine_.judge("write_now");
    if (verdict.error) return std::unexpected(*verdict.error);
    if (engine_.never_now_ || engine_.hanging_) return std::unexpected(Errno{EAGAIN});
    return real_->write_now(offset, verdict.is_short ? half(data) : data);
  }

  SysTask<std::size_t> read(std::uint64_t offset, const Buffers& out) override {
    const auto verdict = co_await engine_.begin("read");
    if (verdict.error) co_return std::unexpected(*verdict.error);
    const Buffers part = verdict.is_short ? half(out) : out;
    co_return co_await engine_.pass(real_->read(offset, part));
  }
  SysTask<std::size_t> write(std::uint64_t offset, const ConstBuffers& data,
                             Durability durability) override {
    const auto verdict = co_await engine_.begin("write");
    if (verdict.error) co_return std::unexpected(*verdict.error);
    const ConstBuffers part = verdict.is_short ? half(data) : data;
    co_return co_await engine_.pass(real_->write(offset, part, durability));
  }
  SysTask<> sync() override { return call("sync", real_->sync()); }
  SysTask<> fallocate(FallocateMode mode, Range range) override {
    return call("fallocate", real_->fallocate(mode, range));
  }
  SysTask<> device_call(DeviceCall what, Range range) override {
    return call("device", real_->device_call(what, range));
  }
  SysTask<> truncate(std::uint64_t size) override {
    return call("truncate", real_->truncate(size));
  }
  SysTask<std::uint64_t> seek(Seek what, std::uint64_t offset) override {
    return call("seek", real_->seek(what, offset));
  }
  SysTask<FileStatus> status() override { return call("status", real_->status()); }
  SysTask<> will_need(Range range) override { return call("will_need", real_->will_need(range)); }
  SysTask<> prepare_reopen(FileAccess access) override {
    return call("reopen", real_->prepare_reopen(access));
  }
  void commit_reopen() override { real_->commit_reopen(); }
  void abort_reopen() override { real_->abort_reopen(); }

  SysResult<> lock(std::uint64_t byte) override {
    const auto verdict = engine_.judge("lock");
    if (verdict.error) return std::unexpected(*verdict.error);
    return real_->lock(byte);
  }
  SysResult<> unlock(std::uint64_t byte) override { return real_->unlock(byte); }
  SysResult<bool> is_locked(std::uint64_t byte) override {
    const auto verdict = engine_.judge("is_locked");
    if (verdict.error) return std::unexpected(*verdict.error);
    return real_->is_locked(byte);
  }

  // Closed in any case, as the kernel does it.
  SysTask<> close() override {
    const auto verdict = co_await engine_.begin("close");
    const SysResult<> done = co_await engine_.pass(real_->close());
    --engine_.open_files_;
    if (verdict.error) co_return std::unexpected(*verdict.error);
    co_return done;
  }

 private:
  template <class List>
  static List half(const List& list) {
    return list.slice(0, std::max<std::size_t>(list.size() / 2, 1));
  }
  template <class T>
  SysTask<T> call(const char* name, SysTask<T> task) {
    const auto verdict = co_await engine_.begin(name);
    if (verdict.error) co_return std::unexpected(*verdict.error);
    co_return co_await engine_.pass(std::move(task));
  }

  FailingEngine& engine_;
  const std::unique_ptr<EngineFile> real_;
};

SysTask<std::unique_ptr<EngineFile>> FailingEngine::open(const std::string& path, OpenFlags flags) {
  const auto verdict = co_await begin("open");
  if (verdict.error) co_return std::unexpected(*verdict.error);
  auto opened = co_await pass(real_.open(path, flags));
  if (!opened) co_return std::unexpected(opened.error());
  co_return std::make_unique<FailingFile>(*this, *std::move(opened));
}

std::unique_ptr<EngineFile> FailingEngine::take_over(std::unique_ptr<HandedFile>) {
  std::abort();  // it belongs to one worker
}

SysTask<> FailingEngine::remove(const std::string& path) {
  const auto verdict = co_await begin("remove");
  if (verdict.error) co_return std::unexpected(*verdict.error);
  co_return co_await pass(real_.remove(path));
}

}  // namespace test
