// host_device.cpp - a block device of the host: never grows by being written, zeroes and discards
// by means of its own. The rest is host_file.h.
//
// A device may become longer under the daemon (a logical volume, a resized loop device). Views keep
// the size they began with; whoever attaches a view, or asks for a resize to the very size the
// device now has, makes the node look again (reread_size). One that became shorter stays as long as
// somebody's view needs it: what is missing fails when it is asked for.
#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "graph/driver.h"
#include "graph/protocol/file_extents.h"
#include "graph/protocol/host_file.h"
#include "graph/protocol/protocol.h"

namespace graph {
namespace {

constexpr std::array host_device_options{
    OptionSpec{"filename", Kind::path, "", "the block device"},
    locking_option,
};

// Of one call, so that none takes for ever: a device may have to write zeroes.
constexpr std::uint64_t zeroes_max = 64 * MiB;
constexpr std::uint64_t discard_max = 1 * GiB;

// ENODEV is another story here: the device is gone.
bool is_lacking(const SysResult<>& done) {
  if (done) return false;
  const int error = done.error().number;
  return error == EOPNOTSUPP || error == ENOSYS || error == ENOTTY;
}

class HostDevice final : public HostFile {
 public:
  explicit HostDevice(HostOpened opened) : HostFile(std::move(opened)) {}

  Growth growth() const override { return Growth::never; }
  Limits own_limits() const override;
  Task<> write(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) override {
    if (!Range{offset, data.size()}.lies_within(own_size())) [[unlikely]]
      return failed(full(offset));
    return HostFile::write(offset, data, flags);
  }
  Task<> write_zeroes(Range range, ZeroFlags flags) override;
  Task<> discard(Range range) override;
  Task<> resize(std::uint64_t size) override;
  Task<> reread_size() override;
  // A device does not tell what it has allocated.
  Task<Extents> map(Range range, MapDepth) override { co_return FileExtents::all_data(range); }

 private:
  Task<> judged(Error error) override;
  SysTask<FileStatus> status() const;
  SysTask<> punch(Range range);
  SysTask<> call(DeviceCall what, Range range);
  Error full(std::uint64_t offset) const {
    return blamed(Errc::no_space, std::max(offset, own_size()),
                  "the device ends at " + std::to_string(own_size()));
  }

  bool lacks_punch_ = false;
  bool lacks_zero_out_ = false;
  bool lacks_discard_ = false;
};

Limits HostDevice::own_limits() const {
  Limits limits = HostFile::own_limits();
  limits.zero_alignment = limits.discard_alignment =
      std::max(unit(), status_at_open().device_block);
  limits.max_zeroes = zeroes_max;
  limits.max_discard = discard_max;
  limits.native_zeroes = !(lacks_punch_ && lacks_zero_out_);
  return limits;
}

SysTask<FileStatus> HostDevice::status() const {
  SysResult<FileStatus> found = co_await file().status();
  while (was_interrupted(found)) found = co_await file().status();
  co_return found;
}

SysTask<> HostDevice::punch(Range range) {
  if (lacks_punch_) co_return std::unexpected(Errno{EOPNOTSUPP});
  SysResult<> done = co_await file().fallocate(FallocateMode::punch_hole, range);
  while (was_interrupted(done)) done = co_await file().fallocate(FallocateMode::punch_hole, range);
  lacks_punch_ = is_lacking(done);
  co_return done;
}

SysTask<> HostDevice::call(DeviceCall what, Range range) {
  bool& lacks = what == DeviceCall::discard ? lacks_discard_ : lacks_zero_out_;
  if (lacks) co_return std::unexpected(Errno{EOPNOTSUPP});
  SysResult<> done = co_await file().device_call(what, range);
  while (was_interrupted(done)) done = co_await file().device_call(what, range);
  lacks = is_lacking(done);
  co_return done;
}

// Punching never writes zeroes, in no kernel; zeroing out may, and then is not for who wants it
// fast.
Task<> HostDevice::write_zeroes(Range range, ZeroFlags flags) {
  if (flags.fua && has_failed()) co_return std::unexpected(lost_writes());
  if (!range.lies_within(own_size())) co_return std::unexpected(full(range.offset));
  SysResult<> done = std::unexpected(Errno{EOPNOTSUPP});
  if (flags.may_unmap) done = co_await punch(range);
  if (is_lacking(done) && (!flags.no_fallback || status_at_open().zeroes_quickly)) {
    done = co_await call(DeviceCall::zero_out, range);
  }
  if (is_lacking(done)) {
    co_return std::unexpected(
        blamed(Errc::not_supported, range.offset, "the device can't zero " + in_words(range)));
  }
  if (!done) {
    co_return co_await judged(
        system_fault(done.error(), range.offset, "zeroing of " + in_words(range)));
  }
  if (flags.fua) co_return co_await sync();
  co_return ok;
}

Task<> HostDevice::discard(Range range) {
  const std::uint64_t block = status_at_open().device_block;
  const std::uint64_t start = align_up(range.offset, block);
  const std::uint64_t end = align_down(range.end(), block);
  if (start >= end) co_return ok;  // advice on a part of a block
  const Range blocks{start, end - start};
  const SysResult<> done = co_await call(DeviceCall::discard, blocks);
  if (done) co_return ok;
  if (is_lacking(done)) {
    co_return std::unexpected(
        blamed(Errc::not_supported, range.offset, "the device can't discard " + in_words(range)));
  }
  co_return co_await judged(
      system_fault(done.error(), range.offset, "discard of " + in_words(blocks)));
}

Task<> HostDevice::reread_size() {
  const SysResult<FileStatus> found = co_await status();
  if (!found) co_return std::unexpected(system_fault(found.error(), 0, "can't tell its size"));
  const std::uint64_t old = own_size();
  if (found->size == old) co_return ok;
  const std::string change = name() + ": host_device: the device has " +
                             std::to_string(found->size) + " bytes now instead of " +
                             std::to_string(old);
  if (Result<> allowed = check_resize(*this, found->size); !allowed) {
    home().log.warning(change + ": " + allowed.error().message);
    co_return ok;
  }
  home().log.info(change);
  set_size(found->size);
  co_return ok;
}

Task<> HostDevice::resize(std::uint64_t size) {
  CO_CHECK(co_await reread_size());
  if (size == own_size()) co_return ok;
  co_return std::unexpected(blamed(Errc::not_supported, 0,
                                   "a block device of " + std::to_string(own_size()) +
                                       " bytes can't be made " + std::to_string(size) +
                                       " bytes long"));
}

// A device that was unplugged or cut answers with all kinds of errors, "no space left" among them.
Task<> HostDevice::judged(Error error) {
  const SysResult<FileStatus> now = co_await status();
  if (!now || now->size == 0) {
    error.code = Errc::io_error;
    error.message += ": the device is gone";
  } else if (now->size < own_size()) {
    error.code = Errc::io_error;
    error.message += ": the device has only " + std::to_string(now->size) + " bytes now";
  }
  co_return std::unexpected(std::move(error));
}

Task<std::unique_ptr<Node>> open_host_device(OpenContext& context) {
  CO_TRY(HostSettings settings, host_settings(context));
  CO_TRY(HostOpened opened,
         co_await open_host_file(context, std::move(settings), FileKind::block_device));
  co_return std::make_unique<HostDevice>(std::move(opened));
}

}  // namespace

extern const Driver host_device_driver{"host_device", "a block device of the host",
                                       host_device_options, open_host_device};

}  // namespace graph
