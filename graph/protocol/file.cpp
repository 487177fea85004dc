// file.cpp - a regular file: grows by being written, has holes. The rest is host_file.h.
#include <algorithm>
#include <array>
#include <cassert>
#include <utility>

#include "graph/driver.h"
#include "graph/protocol/file_extents.h"
#include "graph/protocol/host_file.h"
#include "graph/protocol/protocol.h"

namespace graph {
namespace {

constexpr std::array file_options{
    OptionSpec{"filename", Kind::path, "", "the file"},
    locking_option,
    OptionSpec{"create.size", Kind::bytes, "",
               "make the file, sparse, of this size, if there is none"},
};

class File final : public HostFile {
 public:
  explicit File(HostOpened opened) : HostFile(std::move(opened)) {}

  Growth growth() const override { return Growth::yes; }
  Limits own_limits() const override;
  Task<> write_zeroes(Range range, ZeroFlags flags) override;
  Task<> discard(Range range) override;
  Task<> resize(std::uint64_t size) override;
  Task<Extents> map(Range range, MapDepth depth) override;

 private:
  // Nobody else changes the size, and no write that might is under way.
  class Alone {
   public:
    explicit Alone(File& file) : file_(&file) {}
    Alone(Alone&& other) noexcept : file_(std::exchange(other.file_, nullptr)) {}
    Alone& operator=(Alone&&) = delete;
    ~Alone() {
      if (file_ == nullptr) return;
      file_->alone_ = false;
      file_->writes_.open();
      file_->next_alone_.notify_one();
    }

   private:
    File* file_;
  };
  asio::awaitable<Alone> alone();

  Task<> write_tail(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) override;
  Task<> truncate(std::uint64_t size);
  SysTask<> fallocate(FallocateMode mode, Range range);
  bool& lacks(FallocateMode mode) {
    return mode == FallocateMode::punch_hole ? lacks_punch_ : lacks_zero_range_;
  }

  bool lacks_punch_ = false;
  bool lacks_zero_range_ = false;
  FileExtents extents_;
  bool alone_ = false;
  WaitQueue next_alone_;
};

Limits File::own_limits() const {
  Limits limits = HostFile::own_limits();
  limits.native_zeroes = !(lacks_punch_ && lacks_zero_range_);
  return limits;
}

asio::awaitable<File::Alone> File::alone() {
  while (alone_) co_await next_alone_.wait();
  alone_ = true;
  writes_.close();
  Alone turn(*this);
  co_await writes_.drained();
  co_return std::move(turn);
}

// O_DIRECT writes whole units only: the last one is filled up, and the file cut to its size again.
Task<> File::write_tail(std::uint64_t offset, const ConstBuffers& data, WriteFlags flags) {
  const Alone turn = co_await alone();
  const std::uint64_t end = offset + data.size();
  assert(end >= own_size());  // only there may a request stop
  PooledBuffer bounce(home().buffers, align_up(data.size(), unit()));
  const Buffers padded(bounce.bytes());
  const Buffers padding(bounce.bytes().subspan(data.size()));
  copy_bytes(padded, data);
  fill_zero(padding);
  const ConstBuffers filled(padded);
  Result<> done = co_await write_all(offset, filled, flags, 0, end);
  // nobody has seen the padding, and nobody will: what may be left of it when this fails is zeroes
  Result<> cut = co_await truncate(own_size());
  if (done && !cut) done = std::unexpected(std::move(cut).error().at(offset));
  if (done && flags.fua) done = co_await sync();
  co_return done;
}

SysTask<> File::fallocate(FallocateMode mode, Range range) {
  if (lacks(mode)) co_return std::unexpected(Errno{EOPNOTSUPP});
  SysResult<> done = co_await file().fallocate(mode, range);
  while (was_interrupted(done)) done = co_await file().fallocate(mode, range);
  if (!done && is_unsupported(done.error())) lacks(mode) = true;
  co_return done;
}

Task<> File::write_zeroes(Range range, ZeroFlags flags) {
  if (flags.fua && has_failed()) co_return std::unexpected(lost_writes());
  SysResult<> done = std::unexpected(Errno{EOPNOTSUPP});
  if (flags.may_unmap) done = co_await fallocate(FallocateMode::punch_hole, range);
  if (!done && is_unsupported(done.error())) {
    done = co_await fallocate(FallocateMode::zero_range, range);
  }
  if (!done) {
    if (is_unsupported(done.error())) {
      co_return std::unexpected(blamed(Errc::not_supported, range.offset,
                                       "the file system can't zero " + in_words(range)));
    }
    co_return std::unexpected(
        system_fault(done.error(), range.offset, "zeroing of " + in_words(range)));
  }
  extents_.forget();
  if (range.end() > own_size()) {
    const Alone turn = co_await alone();
    const std::uint64_t old = own_size();
    if (range.end() > old) {
      Result<> grown = co_await truncate(range.end());
      if (!grown) {
        co_return std::unexpected(std::move(grown).error().at(std::max(old, range.offset)));
      }
    }
  }
  if (flags.fua) co_return co_await sync();
  co_return ok;
}

Task<> File::discard(Range range) {
  const SysResult<> done = co_await fallocate(FallocateMode::punch_hole, range);
  extents_.forget();
  if (done) co_return ok;
  if (is_unsupported(done.error())) {
    co_return std::unexpected(blamed(Errc::not_supported, range.offset,
                                     "the file system can't discard " + in_words(range)));
  }
  co_return std::unexpected(
      system_fault(done.error(), range.offset, "discard of " + in_words(range)));
}

// Requires: alone.
Task<> File::truncate(std::uint64_t size) {
  SysResult<> done = co_await file().truncate(size);
  while (was_interrupted(done)) done = co_await file().truncate(size);
  extents_.forget();
  if (!done) {
    co_return std::unexpected(
        system_fault(done.error(), 0, "resize to " + std::to_string(size) + " bytes"));
  }
  set_size(size);
  co_return ok;
}

Task<> File::resize(std::uint64_t size) {
  const Alone turn = co_await alone();
  co_return co_await truncate(size);
}

Task<Extents> File::map(Range range, MapDepth depth) {
  if (depth == MapDepth::allocation) co_return FileExtents::all_data(range);  // S-3
  SysResult<Extents> found = co_await extents_.find(file(), range, own_size());
  if (found) co_return *std::move(found);
  co_return std::unexpected(system_fault(found.error(), range.offset, "map of " + in_words(range)));
}

// Makes the file if there is none, and leaves nothing behind when that fails.
Task<> create_file(OpenContext& context, const std::string& filename) {
  OpenFlags flags;
  flags.access = FileAccess::read_write;
  flags.creation = Creation::exclusive;
  Engine& engine = context.home().engine;
  const std::uint64_t size = context.options().bytes("create.size");
  auto made = co_await open_uninterrupted(engine, filename, flags);
  if (!made) {
    if (made.error().number == EEXIST) co_return ok;
    co_return context.blame("create",
                            open_fault(context, made.error(), "can't create '" + filename + "'"));
  }
  SysResult<> sized = co_await (*made)->truncate(size);
  while (was_interrupted(sized)) sized = co_await (*made)->truncate(size);
  const SysResult<> closed = co_await (*made)->close();
  if (sized) sized = closed;
  if (sized) co_return ok;
  (void)co_await engine.remove(filename);
  co_return context.blame("create.size", open_fault(context, sized.error(),
                                                    "can't make '" + filename + "' " +
                                                        std::to_string(size) + " bytes long"));
}

Task<std::unique_ptr<Node>> open_file(OpenContext& context) {
  CO_TRY(HostSettings settings, host_settings(context));
  if (context.options().has("create.size")) {
    CO_CHECK(co_await create_file(context, settings.filename));
  }
  CO_TRY(HostOpened opened,
         co_await open_host_file(context, std::move(settings), FileKind::regular));
  co_return std::make_unique<File>(std::move(opened));
}

}  // namespace

extern const Driver file_driver{"file", "a file of the host", file_options, open_file};

}  // namespace graph
