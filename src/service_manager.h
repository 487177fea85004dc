// service_manager.h - what a daemon and systemd say to each other: sockets handed over at start,
// and how the daemon is. Without a service manager all of it does nothing.
// Spec: sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3).
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graph/base/error.h"
#include "src/descriptor.h"

namespace app {

struct InheritedSocket {
  enum class State : std::uint8_t { listening, connected };
  Descriptor descriptor;  // does not block, is not passed on to children
  std::string name;       // FileDescriptorName= of the socket unit
  State state = State::listening;
};

// The sockets that LISTEN_FDS names, which is gone from the environment then: they are passed once.
// Errors: invalid_argument, when one of them is no stream socket.
Result<std::vector<InheritedSocket>> take_inherited_sockets();

class ServiceManager {
 public:
  // Reads WATCHDOG_USEC, which is gone from the environment then. NOTIFY_SOCKET stays there:
  // libsystemd looks it up each time. A child that uses it is not heard, since
  // NotifyAccess=main is what the unit file says.
  ServiceManager();

  // Clients are served. The status is for people: one line in `systemctl status`.
  void ready(std::string_view status);
  // The configuration is being read again, until the next ready().
  void reloading();
  void stopping(std::string_view status);

  // How often alive() must be said, or the service manager ends us; none: never.
  std::optional<std::chrono::microseconds> watchdog() const { return watchdog_; }
  // May be called on any thread.
  void alive();

 private:
  std::optional<std::chrono::microseconds> watchdog_;
};

}  // namespace app
