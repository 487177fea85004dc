// main.cpp - what this program is: its commands and its drivers.
#include <malloc.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "formats/formats.h"
#include "graph/filter/filter.h"
#include "graph/protocol/protocol.h"
#include "src/bitmap.h"
#include "src/check_image.h"
#include "src/command_line.h"
#include "src/control/client.h"
#include "src/create.h"
#include "src/daemon.h"
#include "src/image_format.h"
#include "src/image_info.h"
#include "src/map_image.h"
#include "src/resize_image.h"
#include "src/signals.h"
#include "src/snapshot.h"
#include "src/worker.h"

namespace {

constexpr std::array drivers{&graph::file_driver,     &graph::host_device_driver,
                             &graph::memory_driver,   &graph::null_co_driver,
                             &formats::qcow2_driver,  &formats::raw_driver,
                             &graph::blkdebug_driver, &graph::blklogwrites_driver};

constexpr std::size_t message_length_max = 2048;

int fail(const Error& error) {
  std::fprintf(stderr, "%s\n", printable(error.message, message_length_max).c_str());
  return EXIT_FAILURE;
}

using Body = Task<int> (*)(app::Worker& worker, const app::Config& config, app::Drivers drivers);

int run(const Result<app::Config>& config, Body body) {
  if (!config) return fail(config.error());
  const std::unique_ptr<Log> log = stderr_log(config->log_level, config->log_format);
  // who reads JSON lines reads nothing else
  const auto end = [&](const Error& error) {
    if (config->log_format == LogFormat::text) return fail(error);
    log->error(error.message);
    return EXIT_FAILURE;
  };
  const Result<std::unique_ptr<app::Worker>> worker = app::Worker::create(*log, config->io_engine);
  if (!worker) return end(worker.error());
  const Result<int> status = (*worker)->run(body(**worker, *config, drivers));
  return status ? *status : end(status.error());
}

int run(const app::Finished& finished) { return finished.status; }

int run(const app::ServeCommand& command) {
  if (!command.check) app::Signals::block();
  return run(app::load_config(command.config, drivers), command.check ? app::check : app::serve);
}

int run(const app::GraphCommand& command) {
  return run(app::load_config(command.config, drivers), app::draw);
}

Task<int> serve_what_is_raw(app::Worker& worker, const app::Config& config, app::Drivers known) {
  const OptionValue* image = config.nodes.front().options->find("filename");
  CO_CHECK(co_await app::refuse_other_formats(worker.home(), *image->text()));
  co_return co_await app::serve(worker, config, known);
}

int run(const app::ExportCommand& command) {
  app::Signals::block();
  return run(app::config_of(command, drivers),
             command.format.empty() ? serve_what_is_raw : app::serve);
}

int run(const app::CtlCommand& command) {
  const std::unique_ptr<Log> log = stderr_log(LogLevel::warning);
  const Result<std::unique_ptr<app::Worker>> worker =
      app::Worker::create(*log, EngineKind::threads);
  if (!worker) return fail(worker.error());
  const Result<int> status = (*worker)->run(app::control::ctl(**worker, command));
  return status ? *status : fail(status.error());
}

// A command that ends by itself and has no configuration.
template <class C>
int run_tool(const C& command, Task<int> (*body)(app::Worker&, const C&, app::Drivers)) {
  const std::unique_ptr<Log> log = stderr_log(LogLevel::warning);
  const auto worker = app::Worker::create(*log, EngineKind::automatic);
  if (!worker) return fail(worker.error());
  const Result<int> status = (*worker)->run(body(**worker, command, drivers));
  return status ? *status : fail(status.error());
}

int run(const app::CreateCommand& command) { return run_tool(command, app::create_image); }
int run(const app::BitmapCommand& command) { return run_tool(command, app::change_bitmap); }
int run(const app::SnapshotCommand& command) { return run_tool(command, app::change_snapshot); }
int run(const app::InfoCommand& command) { return run_tool(command, app::print_info); }
int run(const app::MapCommand& command) { return run_tool(command, app::map_image); }
int run(const app::ResizeCommand& command) { return run_tool(command, app::resize_image); }
int run(const app::CheckCommand& command) { return run_tool(command, app::check_image); }

}  // namespace

int main(int argc, char** argv) {
  // Large buffers go back to the system when they are free. By default the C library takes each of
  // them as a sign to keep more, in each thread's own heap, far beyond buffer-memory.
  ::mallopt(M_MMAP_THRESHOLD, 256 * 1024);
  std::signal(SIGPIPE, SIG_IGN);  // a reader of our output that leaves must not end the daemon
  std::signal(SIGXFSZ, SIG_IGN);  // nor a file that reaches a limit: that is an error of the write
  const app::Command command = app::parse_command_line(argc, argv, drivers);
  return std::visit([](const auto& chosen) { return run(chosen); }, command);
}
