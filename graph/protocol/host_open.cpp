#include "graph/protocol/host_open.h"

#include <system_error>
#include <utility>

namespace graph {
namespace {

std::string prefix(const OpenContext& context) {
  return context.node_name() + ": " + std::string(context.driver_name()) + ": ";
}

Error wrong_kind(const OpenContext& context, const std::string& filename, FileKind wanted,
                 FileKind found) {
  std::string what = "'" + filename + "' is ";
  if (wanted == FileKind::regular) {
    what += found == FileKind::block_device ? "a block device: use the driver 'host_device'"
                                            : "not a regular file";
  } else {
    what += "not a block device";
    if (found == FileKind::regular) what += ": use the driver 'file'";
  }
  return {Errc::invalid_argument, prefix(context) + what};
}

}  // namespace

bool is_unsupported(Errno error) {
  return error.number == EOPNOTSUPP || error.number == ENOSYS || error.number == ENODEV ||
         error.number == ENOTTY;
}

Error open_fault(const OpenContext& context, Errno error, const std::string& what) {
  Errc code = errc_from_errno(error.number);
  for (const int wrong_name : {ENOENT, ENOTDIR, EISDIR, ELOOP, ENAMETOOLONG, EEXIST}) {
    if (error.number == wrong_name) code = Errc::invalid_argument;
  }
  return {code, context.node_name(), 0,
          prefix(context) + what + ": " + std::generic_category().message(error.number)};
}

SysTask<std::unique_ptr<EngineFile>> open_uninterrupted(Engine& engine, const std::string& name,
                                                        OpenFlags flags) {
  auto opened = co_await engine.open(name, flags);
  while (was_interrupted(opened)) opened = co_await engine.open(name, flags);
  co_return std::move(opened);
}

Result<HostSettings> host_settings(const OpenContext& context) {
  const OptionReader& options = context.options();
  HostSettings settings;
  settings.filename = options.path("filename");
  if (settings.filename.empty()) {
    return context.blame(
        "filename",
        Error(Errc::invalid_argument, context.node_name() + ": the key 'filename' is missing"));
  }
  const std::string locking = options.text("locking");
  settings.locking = locking == "on"    ? Locking::on
                     : locking == "off" ? Locking::off
                                        : Locking::automatic;
  if (options.boolean("cache.direct")) settings.caching = Caching::direct;
  const bool writable = !context.common().read_only && !context.common().auto_read_only;
  if (writable) settings.access = FileAccess::read_write;
  return settings;
}

Task<HostOpened> open_host_file(OpenContext& context, HostSettings settings, FileKind kind) {
  OpenFlags flags;
  flags.access = settings.access;
  flags.caching = settings.caching;
  auto opened = co_await open_uninterrupted(context.home().engine, settings.filename, flags);
  if (!opened) {
    std::string what = "can't open '" + settings.filename + "'";
    if (settings.caching == Caching::direct && opened.error().number == EINVAL) {
      what += " with cache.direct";
    }
    co_return context.blame("filename", open_fault(context, opened.error(), what));
  }
  SysResult<FileStatus> status = co_await (*opened)->status();
  while (was_interrupted(status)) status = co_await (*opened)->status();
  if (!status || status->kind != kind) {
    (void)co_await (*opened)->close();
    if (!status) {
      co_return context.blame("filename", open_fault(context, status.error(),
                                                     "can't examine '" + settings.filename + "'"));
    }
    co_return context.blame("filename", wrong_kind(context, settings.filename, kind, status->kind));
  }
  HostOpened result;
  result.settings = std::move(settings);
  result.file = *std::move(opened);
  result.status = *status;
  co_return std::move(result);
}

}  // namespace graph
