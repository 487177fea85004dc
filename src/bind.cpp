#include "src/bind.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
// needs sys/socket.h before it
#include <linux/vm_sockets.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "graph/base/log.h"

namespace app {
namespace {

constexpr int backlog = SOMAXCONN;  // many clients may come at once
// Another server holds the folder for less than a millisecond.
constexpr auto lock_patience = std::chrono::seconds(5);
constexpr auto lock_pause = std::chrono::milliseconds(10);

std::string reason(int number) { return std::generic_category().message(number); }

std::unexpected<Error> failed(int number, const std::string& advice = "") {
  return failure(errc_from_errno(number), reason(number) + (advice.empty() ? "" : ": " + advice));
}

std::string advice_for_port(int number, std::uint32_t port) {
  constexpr std::uint32_t first_free_port = 1024;
  if (number == EACCES && port != 0 && port < first_free_port) {
    return "ports below 1024 need root or the capability CAP_NET_BIND_SERVICE";
  }
  return number == EADDRNOTAVAIL ? "this machine does not have that address" : "";
}

template <class Name>
int bind_to(const Descriptor& socket, const Name& name, std::size_t length = sizeof(Name)) {
  return ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&name),
                static_cast<socklen_t>(length));
}

Descriptor stream_socket(int family) {
  return Descriptor(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

sockaddr_un local_name(const std::string& path) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  path.copy(name.sun_path, sizeof name.sun_path - 1);
  return name;
}

// The file of a server that is gone: a socket, and nobody answers.
bool is_stale(const std::string& path) {
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0 || !S_ISSOCK(status.st_mode)) return false;
  const Descriptor caller = stream_socket(AF_UNIX);
  const sockaddr_un name = local_name(path);
  return caller.open() &&
         ::connect(caller.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0 &&
         errno == ECONNREFUSED;
}

std::string folder_of(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

std::string advice_for_path(int number, const std::string& path) {
  const std::string folder = "'" + printable(folder_of(path)) + "'";
  if (number == ENOENT) return "the folder " + folder + " does not exist";
  if (number == ENOTDIR) return folder + " is no folder";
  if (number == EACCES) return "gantry may not create files in the folder " + folder;
  if (number == EROFS) return "the folder " + folder + " can't be written";
  return "";
}

// Holds the folder of a socket until it is closed. Between bind and listen a socket looks stale,
// and between looking at a stale one and removing it another may take its place: so servers take
// turns. The lock leaves nothing behind, and ends with its process.
// Errors: busy, when it is taken. Where folders can't be locked there is nothing to hold.
Result<Descriptor> lock_folder(const std::string& path) {
  Descriptor folder(::open(folder_of(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.open() && ::flock(folder.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    return failure(Errc::busy, "");
  }
  return folder;
}

Task<Descriptor> wait_for_folder(Clock& clock, const std::string& path) {
  const Clock::Time end = clock.now() + lock_patience;
  while (true) {
    Result<Descriptor> folder = lock_folder(path);
    if (folder) co_return folder;
    if (clock.now() >= end) {
      co_return failure(Errc::busy, "another process holds a lock on the folder '" +
                                        printable(folder_of(path)) + "'");
    }
    const std::unique_ptr<Timer> pause = clock.timer(lock_pause);
    co_await pause->wait();
  }
}

std::string advice_for_owner(int number, const SocketFile& file) {
  if (number != EPERM) return "";
  if (file.owner) {
    return "giving the socket to user '" + printable(file.owner->name) +
           "' needs root or the capability CAP_CHOWN";
  }
  return "giving the socket to group '" + printable(file.group->name) +
         "' needs root, the capability CAP_CHOWN, or a gantry that is in the group";
}

// The file that was just made at `path`: a path could lead somewhere else the second time, a
// descriptor can't.
Result<> adjust(const std::string& path, const SocketFile& file) {
  constexpr auto unchanged = static_cast<uid_t>(-1);
  if (!file.mode && !file.owner && !file.group) return ok;
  const Descriptor made(::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat status{};
  if (!made.open() || ::fstat(made.get(), &status) != 0) return failed(errno);
  if (!S_ISSOCK(status.st_mode)) return failure(Errc::busy, "somebody has replaced the file");
  const uid_t owner = file.owner ? file.owner->id : unchanged;
  const gid_t group = file.group ? file.group->id : unchanged;
  // not without need: a sandbox may forbid it
  if ((file.owner || file.group) && ::fchownat(made.get(), "", owner, group, AT_EMPTY_PATH) != 0) {
    return failed(errno, advice_for_owner(errno, file));
  }
  const std::string name = "/proc/self/fd/" + std::to_string(made.get());
  if (file.mode && ::chmod(name.c_str(), *file.mode) != 0) {
    return failed(errno, "its mode can't be changed");
  }
  return ok;
}

// Requires: the folder is locked.
Result<Descriptor> bind_in_folder(const std::string& path, const SocketFile& file) {
  Descriptor socket = stream_socket(AF_UNIX);
  if (!socket.open()) return failed(errno);
  // Linux makes the file with the mode of the socket, less what the umask forbids
  if (file.mode && ::fchmod(socket.get(), *file.mode) != 0) return failed(errno);
  const sockaddr_un name = local_name(path);
  if (bind_to(socket, name) != 0) {
    const int number = errno;
    if (number != EADDRINUSE || !is_stale(path)) {
      return failed(number, advice_for_path(number, path));
    }
    if (::unlink(path.c_str()) != 0) return failed(errno, "the file of a server that is gone");
    if (bind_to(socket, name) != 0) return failed(errno);
  }
  Result<> done = adjust(path, file);
  if (done && ::listen(socket.get(), backlog) != 0) done = failed(errno);
  if (done) return socket;
  if (done.error().code != Errc::busy) ::unlink(path.c_str());  // else it is not ours any more
  return std::unexpected(std::move(done).error());
}

}  // namespace

Result<Descriptor> bind_tcp(const asio::ip::tcp::endpoint& endpoint) {
  const int family = endpoint.address().is_v4() ? AF_INET : AF_INET6;
  Descriptor socket = stream_socket(family);
  if (!socket.open()) return failed(errno);
  const int yes = 1;
  (void)::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (family == AF_INET6) {
    (void)::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof yes);
  }
  if (bind_to(socket, *endpoint.data(), endpoint.size()) != 0 ||
      ::listen(socket.get(), backlog) != 0) {
    return failed(errno, advice_for_port(errno, endpoint.port()));
  }
  return socket;
}

Result<Descriptor> bind_vsock(const Address& address) {
  Descriptor socket = stream_socket(AF_VSOCK);
  if (!socket.open()) {
    const int number = errno;
    return failed(number, number == EAFNOSUPPORT ? "the kernel's module vsock is not loaded" : "");
  }
  sockaddr_vm name{};
  name.svm_family = AF_VSOCK;
  name.svm_cid = address.cid;
  name.svm_port = address.port == 0 ? VMADDR_PORT_ANY : address.port;
  if (bind_to(socket, name) != 0 || ::listen(socket.get(), backlog) != 0) {
    return failed(errno, advice_for_port(errno, address.port));
  }
  return socket;
}

Task<Descriptor> bind_local(Clock& clock, const std::string& path, const SocketFile& file) {
  CO_TRY(const Descriptor folder, co_await wait_for_folder(clock, path));
  co_return bind_in_folder(path, file);
}

}  // namespace app
