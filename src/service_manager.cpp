#include "src/service_manager.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>

#include <cerrno>
#include <cstdlib>
#include <memory>

#include "graph/base/log.h"

namespace app {
namespace {

// Names as sd_listen_fds_with_names() gives them: an array of strings, each to be freed.
class Names {
 public:
  ~Names() {
    for (char** name = all_; name != nullptr && *name != nullptr; ++name) std::free(*name);
    std::free(static_cast<void*>(all_));
  }
  Names() = default;
  Names(const Names&) = delete;
  Names& operator=(const Names&) = delete;
  char*** place() { return &all_; }
  std::string at(int index) const { return all_ == nullptr ? "" : all_[index]; }

 private:
  char** all_ = nullptr;
};

Result<InheritedSocket> inherited(int descriptor, std::string name) {
  InheritedSocket socket{Descriptor(descriptor), std::move(name)};
  int type = 0;
  int listening = 0;
  socklen_t length = sizeof type;
  const auto refuse = [&](std::string_view why) {
    return failure(Errc::invalid_argument, "descriptor " + std::to_string(descriptor) + " ('" +
                                               printable(socket.name) +
                                               "') from the service manager " + std::string(why));
  };
  if (::getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &length) != 0) {
    return refuse("is no socket");
  }
  if (type != SOCK_STREAM) return refuse("is no stream socket: NBD needs ListenStream=");
  length = sizeof listening;
  if (::getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) != 0) {
    return refuse("can't be asked whether it listens");
  }
  socket.state =
      listening != 0 ? InheritedSocket::State::listening : InheritedSocket::State::connected;
  const int flags = ::fcntl(descriptor, F_GETFL);
  if (flags < 0 || ::fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) != 0) {
    return refuse("can't be used without blocking");
  }
  return socket;
}

// Advice: a service manager that is not listening changes nothing for our clients.
void tell(const std::string& state) { (void)::sd_notify(0, state.c_str()); }

std::string line(std::string_view key, std::string_view text) {
  constexpr std::size_t status_max = 256;
  return std::string(key) + "=" + printable(text, status_max) + "\n";
}

}  // namespace

Result<std::vector<InheritedSocket>> take_inherited_sockets() {
  constexpr int and_unset = 1;
  Names names;
  const int count = ::sd_listen_fds_with_names(and_unset, names.place());
  if (count < 0) return std::unexpected(error_from_errno(-count, "sockets of the service manager"));
  std::vector<InheritedSocket> sockets;
  for (int i = 0; i < count; ++i) {
    TRY(InheritedSocket socket, inherited(SD_LISTEN_FDS_START + i, names.at(i)));
    sockets.push_back(std::move(socket));
  }
  return sockets;
}

ServiceManager::ServiceManager() {
  constexpr int and_unset = 1;
  std::uint64_t interval_us = 0;
  if (::sd_watchdog_enabled(and_unset, &interval_us) > 0) {
    watchdog_ = std::chrono::microseconds(interval_us);
  }
}

void ServiceManager::ready(std::string_view status) { tell(line("STATUS", status) + "READY=1\n"); }

void ServiceManager::reloading() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();  // CLOCK_MONOTONIC
  const auto now_us = std::chrono::duration_cast<std::chrono::microseconds>(now).count();
  tell("RELOADING=1\nMONOTONIC_USEC=" + std::to_string(now_us) + "\n");
}

void ServiceManager::stopping(std::string_view status) {
  tell(line("STATUS", status) + "STOPPING=1\n");
}

void ServiceManager::alive() { tell("WATCHDOG=1\n"); }

}  // namespace app
