// failing_engine.h - an engine over another one whose calls fail, come short or hang when a test
// wants it: a disk that dies in the middle of anything.
#pragma once

#include <asio/io_context.hpp>
#include <cstddef>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "graph/base/engine.h"
#include "graph/base/wait_queue.h"

namespace test {

// How a call goes wrong: an errno, or half of what was asked for.
struct Fault {
  const char* name;
  int error;                 // 0: a short count
  bool is_harmless() const;  // whoever calls goes on as if nothing had happened
};
std::ostream& operator<<(std::ostream& out, const Fault& fault);
extern const std::vector<Fault> all_faults;

class FailingEngine final : public Engine {
 public:
  explicit FailingEngine(Engine& real) : real_(real) {}
  // The same for a real engine whose caller runs on a simulated executor: each call is made to its
  // end on `loop`, which nobody else runs.
  FailingEngine(Engine& real, asio::io_context& loop) : real_(real), loop_(&loop) {}

  // The `nth` call from now on goes wrong, 1 being the next.
  void fail(std::size_t nth, const Fault& fault);
  // Calls since then.
  std::size_t calls() const { return calls_; }
  // The one that went wrong: "read", or "" when it has not come.
  const std::string& failed() const { return failed_; }
  // Inline calls say that they would have to wait.
  void do_nothing_now() { never_now_ = true; }
  // Calls hang from now on, until release().
  void hang() { hanging_ = true; }
  void release();
  std::size_t hung() const { return hung_; }
  std::size_t open_files() const { return open_files_; }

  std::string_view name() const override { return "failing"; }
  SysTask<std::unique_ptr<EngineFile>> open(const std::string& path, OpenFlags flags) override;
  std::unique_ptr<EngineFile> take_over(std::unique_ptr<HandedFile> file) override;
  SysTask<> remove(const std::string& path) override;

 private:
  friend class FailingFile;
  // Of the call that comes now.
  struct Verdict {
    std::optional<Errno> error;
    bool is_short = false;
  };
  Verdict judge(const char* call);
  asio::awaitable<Verdict> begin(const char* call);
  template <class T>
  SysTask<T> pass(SysTask<T> task);

  Engine& real_;
  asio::io_context* loop_ = nullptr;
  std::size_t calls_ = 0;
  std::size_t fails_at_ = 0;
  Fault fault_{"", 0};
  std::string failed_;
  bool never_now_ = false;
  bool hanging_ = false;
  std::size_t hung_ = 0;
  WaitQueue released_;
  std::size_t open_files_ = 0;
};

}  // namespace test
