#include "tests/support/real_world.h"

#include <linux/magic.h>
#include <sys/vfs.h>

#include <cstdlib>

namespace test {

namespace {

std::filesystem::path usual_parent() {
  if (const char* chosen = std::getenv("TMPDIR")) return chosen;
  return std::filesystem::read_symlink("/proc/self/exe").parent_path();
}

}  // namespace

TempDir::TempDir() : TempDir(usual_parent()) {}

TempDir::TempDir(const std::filesystem::path& parent) {
  std::string name = (parent / "gantry-test-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) {
    ADD_FAILURE() << "no temporary folder in " << parent;
    std::abort();
  }
  folder_ = name;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

bool TempDir::is_tmpfs() const {
  struct statfs system{};
  return ::statfs(folder_.c_str(), &system) == 0 &&
         static_cast<unsigned long>(system.f_type) == TMPFS_MAGIC;
}

RealWorld::RealWorld(EngineKind engine)
    : home{context.get_executor(), clock_, make_engine(engine), buffers_, log, *helpers_} {}

Engine& RealWorld::make_engine(EngineKind kind) {
  auto made = ::make_engine(kind, context);
  if (made) {
    engine_ = *std::move(made);
  } else {
    missing_ = made.error().message;
    engine_ = std::make_unique<sim::NoEngine>();
  }
  return *engine_;
}

}  // namespace test
