// host_open.h - opens what the key `filename` names, for the drivers of files and devices.
#pragma once

#include <cerrno>
#include <memory>
#include <string>

#include "graph/base/engine.h"
#include "graph/driver.h"

namespace graph {

inline constexpr OptionSpec locking_option{
    "locking", Kind::choice, "auto",
    "keep other processes away with QEMU's locks; auto: where the file system can", "on|off|auto"};

enum class Locking : std::uint8_t { off, on, automatic };

struct HostSettings {
  std::string filename;
  Locking locking = Locking::automatic;
  FileAccess access = FileAccess::read_only;
  Caching caching = Caching::buffered;
};

struct HostOpened {
  HostSettings settings;
  std::unique_ptr<EngineFile> file;
  FileStatus status;
};

// Errors: invalid_argument when the key is missing.
Result<HostSettings> host_settings(const OpenContext& context);
// Errors, with the position of `filename`: what the system says; invalid_argument when there is
// nothing of this name, or no such `kind` of thing.
Task<HostOpened> open_host_file(OpenContext& context, HostSettings settings, FileKind kind);

Error open_fault(const OpenContext& context, Errno error, const std::string& what);
SysTask<std::unique_ptr<EngineFile>> open_uninterrupted(Engine& engine, const std::string& name,
                                                        OpenFlags flags);

template <class T>
bool was_interrupted(const SysResult<T>& result) {
  return !result && result.error().number == EINTR;
}
// The system has no such call for this file.
bool is_unsupported(Errno error);

}  // namespace graph
