#include "src/reload.h"

#include "src/config_diff.h"

namespace app {

void reload(const Config& running, Drivers drivers, Log& log, Listeners& listeners) {
  const std::string& file = running.position.file;
  if (file.empty()) {
    log.info("SIGHUP: there is no configuration file to read again");
    return;
  }
  const Result<Config> fresh = load_config(file, drivers);
  if (!fresh) {
    log.error("SIGHUP: nothing is changed: " + printable(fresh.error().message, 2048));
    return;
  }
  log.set_level(fresh->log_level);
  listeners.set_allow(fresh->listen);
  std::string others;
  for (const std::string& key : differences(running, *fresh)) {
    others += (others.empty() ? "" : ", ") + key;
  }
  log.info("SIGHUP: " + printable(file) + " is read again");
  if (!others.empty()) {
    log.warning("SIGHUP: " + others + ": changed, takes effect at the next start");
  }
}

}  // namespace app
