#include "graph/base/thread_engine.h"

#include "graph/base/posix_file.h"

namespace {

class ThreadEngine final : public Engine {
 public:
  explicit ThreadEngine(const std::string& why)
      : name_(why.empty() ? "a thread pool" : "a thread pool: " + why) {}

  std::string_view name() const override { return name_; }
  SysTask<std::unique_ptr<EngineFile>> open(const std::string& path, OpenFlags flags) override {
    SysResult<OpenedFile> opened = co_await open_on_thread(threads_, path, flags);
    if (!opened) co_return std::unexpected(opened.error());
    co_return std::make_unique<PosixFile>(threads_, *std::move(opened));
  }
  std::unique_ptr<EngineFile> take_over(std::unique_ptr<HandedFile> file) override {
    return std::make_unique<PosixFile>(threads_, std::move(static_cast<OpenedFile&>(*file)));
  }
  SysTask<> remove(const std::string& path) override { return remove_on_thread(threads_, path); }

 private:
  const std::string name_;
  CallThreads threads_;
};

}  // namespace

std::unique_ptr<Engine> make_thread_engine(const std::string& why) {
  return std::make_unique<ThreadEngine>(why);
}
