#include "graph/base/block_device.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <array>
#include <cerrno>
#include <charconv>

#include "graph/base/file_descriptor.h"

namespace {

std::unexpected<Errno> last_error() { return std::unexpected(Errno{errno}); }

// The number in a file of the device's queue in sysfs; 0 when nobody knows.
std::uint64_t queue_limit(dev_t device, const std::string& limit) {
  for (const char* queue : {"/queue/", "/../queue/"}) {  // a partition has its disk's
    std::string path = "/sys/dev/block/" + std::to_string(major(device)) + ":";
    path.append(std::to_string(minor(device))).append(queue).append(limit);
    const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    std::array<char, 32> text{};
    const ssize_t length = file ? ::read(file.number(), text.data(), text.size()) : 0;
    std::uint64_t number = 0;
    if (length > 0 &&
        std::from_chars(text.data(), text.data() + length, number).ec == std::errc{}) {
      return number;
    }
  }
  return 0;
}

}  // namespace

SysResult<> examine_device(int file, FileStatus& status) {
  std::uint64_t size = 0;
  int block = 0;
  struct stat found{};
  if (::ioctl(file, BLKGETSIZE64, &size) < 0 || ::ioctl(file, BLKSSZGET, &block) < 0 ||
      ::fstat(file, &found) < 0) {
    return last_error();
  }
  status.size = status.allocated = size;
  status.device_block = block > 0 ? static_cast<std::uint32_t>(block) : 512;
  status.zeroes_quickly = queue_limit(found.st_rdev, "write_zeroes_max_bytes") > 0;
  return {};
}

SysResult<> call_device(int file, DeviceCall call, Range range) {
  std::array<std::uint64_t, 2> bounds{range.offset, range.length};
  const unsigned long number = call == DeviceCall::discard ? BLKDISCARD : BLKZEROOUT;
  if (::ioctl(file, number, bounds.data()) < 0) return last_error();
  return {};
}
