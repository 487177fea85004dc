#include "tests/support/sim_disk.h"

#include <algorithm>
#include <asio/post.hpp>
#include <asio/use_awaitable.hpp>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <optional>
#include <set>
#include <utility>

namespace sim {
namespace {

constexpr std::uint64_t sector_size = 512;  // what the medium writes whole or not at all
constexpr std::uint64_t block_size = 4096;  // what the file system allocates
constexpr std::size_t versions_max = 4;     // of a sector, between two syncs

using SectorData = std::array<std::byte, sector_size>;

struct Block {
  std::array<std::byte, block_size> data{};
  bool written = false;  // false: provisioned, a hole to SEEK_DATA
};

template <class T>
struct Version {
  std::uint64_t generation;
  bool lost;  // a sync of it failed: the cache calls it clean, the medium has not got it
  T value;
};

}  // namespace

// A file: what readers see, and what the medium has.
struct Disk::Inode {
  std::uint64_t size = 0;
  FileKind kind = FileKind::regular;
  std::map<std::uint64_t, Block> blocks;  // by offset / block_size
  bool read_only = false;
  std::map<std::uint64_t, std::vector<const void*>> locks;  // holders by byte

  std::uint64_t generation = 0;  // counts changes
  unsigned syncs = 0;            // under way: then no version is forgotten
  std::uint64_t medium_size = 0;
  std::map<std::uint64_t, SectorData> medium;  // by offset / sector_size; absent: zeroes
  std::map<std::uint64_t, std::vector<Version<SectorData>>> dirty;
  std::vector<Version<std::uint64_t>> dirty_sizes;

  SectorData sector(std::uint64_t number) const {
    SectorData data{};
    const std::uint64_t at = number * sector_size;
    const auto block = blocks.find(at / block_size);
    if (block != blocks.end()) {
      std::copy_n(block->second.data.begin() + static_cast<std::ptrdiff_t>(at % block_size),
                  sector_size, data.begin());
    }
    return data;
  }
  void read(std::uint64_t offset, std::span<std::byte> out) const {
    while (!out.empty()) {
      const std::uint64_t in_block = offset % block_size;
      const std::size_t n = std::min<std::uint64_t>(out.size(), block_size - in_block);
      const auto block = blocks.find(offset / block_size);
      if (block == blocks.end()) {
        std::ranges::fill(out.first(n), std::byte{0});
      } else {
        std::ranges::copy(std::span(block->second.data).subspan(in_block, n), out.begin());
      }
      out = out.subspan(n);
      offset += n;
    }
  }
  void note(Range range) {
    if (range.empty()) return;
    for (std::uint64_t number = range.offset / sector_size; number * sector_size < range.end();
         ++number) {
      auto& versions = dirty[number];
      if (versions.size() >= versions_max && syncs == 0) versions.erase(versions.begin() + 1);
      versions.push_back({generation, false, sector(number)});
    }
  }
  void set_size(std::uint64_t to) {
    if (to == size) return;
    size = to;
    dirty_sizes.push_back({generation, false, to});
    if (dirty_sizes.size() > 64 && syncs == 0) dirty_sizes.erase(dirty_sizes.begin() + 1);
  }
  // Everything up to `last` is on the medium; `range`: only there.
  void settle(std::uint64_t last, std::optional<Range> range = std::nullopt) {
    for (auto entry = dirty.begin(); entry != dirty.end();) {
      const Range place{entry->first * sector_size, sector_size};
      auto& versions = entry->second;
      if (range && !range->overlaps(place)) {
        ++entry;
        continue;
      }
      const auto newest = std::find_if(
          versions.rbegin(), versions.rend(),
          [&](const auto& version) { return version.generation <= last && !version.lost; });
      if (newest != versions.rend()) {
        medium[entry->first] = newest->value;
        versions.erase(versions.begin(), newest.base());
      }
      entry = versions.empty() ? dirty.erase(entry) : std::next(entry);
    }
    const auto newest = std::find_if(
        dirty_sizes.rbegin(), dirty_sizes.rend(),
        [&](const auto& version) { return version.generation <= last && !version.lost; });
    if (newest == dirty_sizes.rend()) return;
    medium_size = newest->value;
    dirty_sizes.erase(dirty_sizes.begin(), newest.base());
  }
  void lose(std::uint64_t last) {
    for (auto& [number, versions] : dirty) {
      for (auto& version : versions) version.lost = version.lost || version.generation <= last;
    }
    for (auto& version : dirty_sizes) version.lost = version.lost || version.generation <= last;
  }
};

Disk::Disk(std::uint64_t seed, DiskTraits disk_traits) : traits(disk_traits), random_(seed) {}
Disk::~Disk() = default;

void Disk::make(const std::string& path, std::vector<std::byte> content) {
  auto file = std::make_shared<Inode>();
  file->size = content.size();
  for (std::uint64_t at = 0; at < content.size(); at += block_size) {
    const std::size_t n = std::min<std::uint64_t>(block_size, content.size() - at);
    Block& block = file->blocks[at / block_size];
    block.written = true;
    std::copy_n(content.begin() + static_cast<std::ptrdiff_t>(at), n, block.data.begin());
    ++used_blocks_;
  }
  file->note({0, content.size()});
  file->dirty_sizes.push_back({0, false, content.size()});
  file->settle(0);
  files_[path] = std::move(file);
}

void Disk::make(const std::string& path, std::uint64_t size) {
  auto file = std::make_shared<Inode>();
  file->size = file->medium_size = size;
  files_[path] = std::move(file);
}

void Disk::make_device(const std::string& path, std::uint64_t size) {
  make(path, size);
  find(path)->kind = FileKind::block_device;
}

Disk::Inode* Disk::find(const std::string& path) const {
  const auto found = files_.find(path);
  return found == files_.end() ? nullptr : found->second.get();
}
void Disk::protect(const std::string& path) { find(path)->read_only = true; }
bool Disk::exists(const std::string& path) const { return find(path) != nullptr; }
std::uint64_t Disk::size(const std::string& path) const { return find(path)->size; }
std::uint64_t Disk::allocated(const std::string& path) const {
  return find(path)->blocks.size() * block_size;
}
bool Disk::is_locked(const std::string& path, std::uint64_t byte) const {
  const auto& locks = find(path)->locks;
  const auto found = locks.find(byte);
  return found != locks.end() && !found->second.empty();
}

void Disk::cut(const std::string& path, std::uint64_t size) {
  Inode& file = *find(path);
  used_blocks_ -= file.blocks.size();
  file.blocks.erase(file.blocks.lower_bound(align_up(size, block_size) / block_size),
                    file.blocks.end());
  used_blocks_ += file.blocks.size();
  file.size = file.medium_size = size;
}

std::vector<std::byte> Disk::content(const std::string& path) const {
  const Inode& file = *find(path);
  std::vector<std::byte> all(file.size);
  file.read(0, all);
  return all;
}

void Disk::fail(Call call, unsigned nth, int error) {
  Failure failure;
  failure.at = calls(call) + nth;
  failure.error = error;
  failures_[static_cast<std::size_t>(call)].push_back(failure);
}

void Disk::fail_some(Call call, unsigned one_in, int error) {
  auto& failures = failures_[static_cast<std::size_t>(call)];
  std::erase_if(failures, [](const Failure& failure) { return failure.some > 0; });
  Failure failure;
  failure.some = one_in;
  failure.some_error = error;
  if (one_in > 0) failures.push_back(failure);
}

int Disk::count(Call call) {
  const unsigned number = ++count_[static_cast<std::size_t>(call)];
  if (calls_left_ > 0 && --calls_left_ == 0) on_ = false;
  if (!on_) return EIO;
  for (const Failure& failure : failures_[static_cast<std::size_t>(call)]) {
    if (failure.at == number) return failure.error;
    if (one_in(failure.some)) return failure.some_error;
  }
  return 0;
}

void Disk::crash() {
  for (auto& [path, file] : files_) {
    for (const auto& [number, versions] : file->dirty) {
      const std::uint64_t chosen = choose(versions.size() + 1);
      if (chosen > 0) file->medium[number] = versions[chosen - 1].value;
    }
    const std::uint64_t chosen = choose(file->dirty_sizes.size() + 1);
    if (chosen > 0) file->medium_size = file->dirty_sizes[chosen - 1].value;
    file->dirty.clear();
    file->dirty_sizes.clear();
    file->locks.clear();
    used_blocks_ -= file->blocks.size();
    file->blocks.clear();
    file->size = file->medium_size;
    for (auto entry = file->medium.begin(); entry != file->medium.end();) {
      const std::uint64_t at = entry->first * sector_size;
      if (at >= file->size) {
        entry = file->medium.erase(entry);
        continue;
      }
      const std::size_t there = std::min(sector_size, file->size - at);
      std::ranges::fill(std::span(entry->second).subspan(there), std::byte{0});
      const bool fresh = !file->blocks.contains(at / block_size);
      Block& block = file->blocks[at / block_size];
      used_blocks_ += fresh ? 1 : 0;
      block.written = true;
      std::ranges::copy(entry->second,
                        block.data.begin() + static_cast<std::ptrdiff_t>(at % block_size));
      ++entry;
    }
  }
  ++epoch_;
  calls_left_ = 0;
  on_ = true;
}

class SimFile final : public EngineFile {
 public:
  std::unique_ptr<HandedFile> hand_over() override { std::abort(); }  // it belongs to one worker
  using Inode = Disk::Inode;
  SimFile(Disk& disk, Scheduler& scheduler, std::shared_ptr<Inode> inode, OpenFlags flags)
      : disk_(disk),
        scheduler_(scheduler),
        inode_(std::move(inode)),
        flags_(flags),
        epoch_(disk.epoch_) {}
  ~SimFile() override { release_locks(); }

  SysResult<std::size_t> read_now(std::uint64_t offset, const Buffers& out) override {
    if (const int error = begin_now(Call::read_now); error != 0) return fault(error);
    if (!disk_.traits.reads_now) return fault(EOPNOTSUPP);
    assert(flags_.caching == Caching::buffered && "O_DIRECT may block");
    if (disk_.chaos.short_counts > 0 && disk_.one_in(4)) return fault(EAGAIN);
    return read_at(offset, out);
  }
  SysResult<std::size_t> write_now(std::uint64_t offset, const ConstBuffers& data) override {
    if (const int error = begin_now(Call::write_now); error != 0) return fault(error);
    assert(disk_.traits.is_quick && flags_.caching == Caching::buffered);
    return write_at(offset, data, Durability::cached);
  }

  SysTask<std::size_t> read(std::uint64_t offset, const Buffers& out) override {
    if (const int error = co_await begin(Call::read); error != 0) co_return fault(error);
    if (!fits(offset, out)) co_return fault(EINVAL);
    const SysResult<std::size_t> got = read_at(offset, out);
    co_await pause();
    co_return got;
  }
  SysTask<std::size_t> write(std::uint64_t offset, const ConstBuffers& data,
                             Durability durability) override {
    const int error = co_await begin(Call::write);
    if (!fits(offset, data)) co_return fault(EINVAL);
    if (error != 0) {
      if (error == EIO && alive() && disk_.chaos.short_counts > 0 && disk_.one_in(2)) {
        (void)write_at(offset, data, Durability::cached);  // a part of it may have happened
      }
      co_return fault(error);
    }
    const SysResult<std::size_t> put = write_at(offset, data, durability);
    co_await pause();
    co_return put;
  }

  SysTask<> sync() override {
    const std::uint64_t asked = inode_->generation;
    ++inode_->syncs;
    const int error = co_await begin(Call::sync);
    --inode_->syncs;
    if (error != 0) {
      if (error != EINTR && alive()) inode_->lose(asked);
      co_return std::unexpected(Errno{error});
    }
    inode_->settle(asked);
    co_await pause();
    co_return SysResult<>();
  }

  SysTask<> fallocate(FallocateMode mode, Range range) override {
    if (const int error = co_await begin(Call::fallocate); error != 0) co_return fault_only(error);
    const bool known = mode == FallocateMode::punch_hole   ? disk_.traits.punches_holes
                       : mode == FallocateMode::zero_range ? disk_.traits.zeroes_ranges
                                                           : true;
    if (!known) co_return fault_only(EOPNOTSUPP);
    if (flags_.access == FileAccess::read_only) co_return fault_only(EBADF);
    if (range.empty()) co_return fault_only(EINVAL);
    const SysResult<> done = change(mode, range);
    co_await pause();
    co_return done;
  }

  SysTask<> device_call(DeviceCall call, Range range) override {
    if (const int error = co_await begin(Call::device); error != 0) co_return fault_only(error);
    assert(is_aligned(range.offset, sector_size) && is_aligned(range.length, sector_size));
    if (inode_->kind != FileKind::block_device) co_return fault_only(ENOTTY);
    if (call == DeviceCall::discard && !disk_.traits.discards) co_return fault_only(EOPNOTSUPP);
    if (flags_.access == FileAccess::read_only) co_return fault_only(EBADF);
    if (!range.lies_within(inode_->size)) co_return fault_only(EINVAL);
    const SysResult<> done = change(
        call == DeviceCall::discard ? FallocateMode::punch_hole : FallocateMode::zero_range, range);
    co_await pause();
    co_return done;
  }

  SysTask<> truncate(std::uint64_t size) override {
    if (const int error = co_await begin(Call::truncate); error != 0) co_return fault_only(error);
    if (flags_.access == FileAccess::read_only) co_return fault_only(EINVAL);
    if (size < inode_->size) {
      ++inode_->generation;
      erase({size, inode_->size - size});
      inode_->note({size, inode_->size - size});
    }
    ++inode_->generation;
    inode_->set_size(size);
    co_await pause();
    co_return SysResult<>();
  }

  SysTask<std::uint64_t> seek(Seek what, std::uint64_t offset) override {
    if (const int error = co_await begin(Call::seek); error != 0) {
      co_return std::unexpected(Errno{error});
    }
    if (offset >= inode_->size) co_return std::unexpected(Errno{ENXIO});
    if (!disk_.traits.knows_holes) co_return what == Seek::data ? offset : inode_->size;
    for (std::uint64_t at = offset; at < inode_->size;
         at = align_down(at, block_size) + block_size) {
      const auto block = inode_->blocks.find(at / block_size);
      const bool data = block != inode_->blocks.end() && block->second.written;
      if (data == (what == Seek::data)) co_return at;
      if (block == inode_->blocks.end()) {  // to the next block there is
        const auto next = inode_->blocks.lower_bound(at / block_size);
        if (next == inode_->blocks.end()) break;
        at = (next->first - 1) * block_size;
      }
    }
    if (what == Seek::data) co_return std::unexpected(Errno{ENXIO});
    co_return inode_->size;
  }

  SysTask<FileStatus> status() override {
    if (const int error = co_await begin(Call::status); error != 0) {
      co_return std::unexpected(Errno{error});
    }
    FileStatus status;
    status.size = inode_->size;
    status.allocated = inode_->blocks.size() * block_size;
    status.is_quick = disk_.traits.is_quick;
    status.kind = inode_->kind;
    if (status.kind == FileKind::block_device) {
      status.allocated = status.size;
      status.is_quick = false;
      status.device_block = sector_size;
      status.zeroes_quickly = disk_.traits.zeroes_quickly;
    }
    status.direct_alignment = disk_.traits.direct_alignment;
    co_return status;
  }
  SysTask<> will_need(Range) override {
    if (const int error = co_await begin(Call::will_need); error != 0) co_return fault_only(error);
    co_return SysResult<>();
  }

  SysTask<> prepare_reopen(FileAccess access) override {
    if (const int error = co_await begin(Call::reopen); error != 0) co_return fault_only(error);
    if (access == FileAccess::read_write && inode_->read_only) co_return fault_only(EACCES);
    other_ = access;
    co_return SysResult<>();
  }
  void commit_reopen() override {
    if (other_) flags_.access = *std::exchange(other_, std::nullopt);
  }
  void abort_reopen() override { other_.reset(); }

  SysResult<> lock(std::uint64_t byte) override {
    if (const int error = lock_error(); error != 0) return fault_only(error);
    auto& holders = inode_->locks[byte];
    if (std::ranges::find(holders, this) == holders.end()) holders.push_back(this);
    return {};
  }
  SysResult<> unlock(std::uint64_t byte) override {
    std::erase(inode_->locks[byte], this);
    return {};
  }
  SysResult<bool> is_locked(std::uint64_t byte) override {
    if (const int error = lock_error(); error != 0) return std::unexpected(Errno{error});
    return std::ranges::any_of(inode_->locks[byte],
                               [this](const void* holder) { return holder != this; });
  }

  SysTask<> close() override {
    const int error = co_await begin(Call::close);
    release_locks();
    if (error != 0) co_return fault_only(error);
    co_return SysResult<>();
  }

 private:
  static std::unexpected<Errno> fault(int error) { return std::unexpected(Errno{error}); }
  static SysResult<> fault_only(int error) { return std::unexpected(Errno{error}); }
  bool alive() const { return disk_.on_ && epoch_ == disk_.epoch_; }

  int begin_now(Call call) {
    if (const int error = disk_.count(call); error != 0) return error;
    return alive() ? 0 : EIO;
  }
  asio::awaitable<int> begin(Call call) {
    const int error = disk_.count(call);
    co_await pause();
    if (!alive()) co_return EIO;
    if (error != 0) co_return error;
    co_return disk_.one_in(disk_.chaos.interrupts) ? EINTR : 0;
  }
  asio::awaitable<void> pause() {
    if (disk_.chaos.delays == 0 || !scheduler_.one_in(disk_.chaos.delays)) co_return;
    if (scheduler_.one_in(2)) {
      co_await asio::post(scheduler_.executor(), asio::use_awaitable);
      co_return;
    }
    SimClock clock(scheduler_);
    const auto timer =
        clock.timer(std::chrono::microseconds(static_cast<std::int64_t>(scheduler_.choose(100))));
    co_await timer->wait();
  }

  std::uint64_t unit() const {
    return flags_.caching == Caching::direct ? disk_.traits.direct_alignment : 1;
  }
  template <class List>
  bool fits(std::uint64_t offset, const List& list) const {
    return is_aligned(offset, unit()) && list.is_aligned_to(unit());
  }
  std::size_t maybe_short(std::size_t n) {
    if (n == 0 || !disk_.one_in(disk_.chaos.short_counts)) return n;
    return std::min(n, std::max(align_down(1 + disk_.choose(n), unit()), unit()));
  }

  SysResult<std::size_t> read_at(std::uint64_t offset, const Buffers& out) {
    if (offset >= inode_->size) return 0;
    const std::size_t there = std::min<std::uint64_t>(out.size(), inode_->size - offset);
    const std::size_t n = maybe_short(there);
    const Buffers part = out.slice(0, n);
    for (const auto& span : part.spans()) {
      inode_->read(offset, span);
      offset += span.size();
    }
    return n;
  }

  SysResult<std::size_t> write_at(std::uint64_t offset, const ConstBuffers& data,
                                  Durability durability) {
    if (flags_.access == FileAccess::read_only) return fault(EBADF);
    std::size_t wanted = maybe_short(data.size());
    if (disk_.traits.whole_sectors && wanted < data.size()) {
      const std::uint64_t end = align_down(offset + wanted, sector_size);
      wanted = end > offset ? end - offset : data.size();
    }
    if (inode_->kind == FileKind::block_device) {
      if (offset >= inode_->size) return fault(ENOSPC);
      wanted = std::min<std::uint64_t>(wanted, inode_->size - offset);
    }
    std::size_t done = 0;
    ++inode_->generation;
    const ConstBuffers part = data.slice(0, wanted);
    for (auto span : part.spans()) {
      while (!span.empty()) {
        const std::uint64_t at = offset + done;
        Block* block = provision(at / block_size);
        if (block == nullptr) {
          done = align_down(done, unit());
          finish_write({offset, done}, durability);
          if (done == 0) return fault(ENOSPC);
          return done;
        }
        const std::size_t n = std::min<std::uint64_t>(span.size(), block_size - at % block_size);
        block->written = true;
        std::ranges::copy(span.first(n),
                          block->data.begin() + static_cast<std::ptrdiff_t>(at % block_size));
        span = span.subspan(n);
        done += n;
      }
    }
    finish_write({offset, done}, durability);
    return done;
  }
  void finish_write(Range range, Durability durability) {
    inode_->note(range);
    if (!range.empty()) inode_->set_size(std::max(inode_->size, range.end()));
    if (durability == Durability::synced) inode_->settle(inode_->generation, range);
  }

  // The block, allocated where it was a hole; null when the disk is full.
  Block* provision(std::uint64_t number) {
    const auto found = inode_->blocks.find(number);
    if (found != inode_->blocks.end()) return &found->second;
    if ((disk_.used_blocks_ + 1) > disk_.traits.capacity / block_size) return nullptr;
    ++disk_.used_blocks_;
    return &inode_->blocks[number];
  }
  // Zeroes bytes, and gives whole blocks back.
  void erase(Range range) {
    for (auto entry = inode_->blocks.lower_bound(range.offset / block_size);
         entry != inode_->blocks.end() && entry->first * block_size < range.end();) {
      const std::uint64_t start = std::max(entry->first * block_size, range.offset);
      const std::uint64_t end = std::min((entry->first + 1) * block_size, range.end());
      if (end - start == block_size) {
        --disk_.used_blocks_;
        entry = inode_->blocks.erase(entry);
        continue;
      }
      std::ranges::fill(std::span(entry->second.data).subspan(start % block_size, end - start),
                        std::byte{0});
      ++entry;
    }
  }
  SysResult<> change(FallocateMode mode, Range range) {
    ++inode_->generation;
    if (mode == FallocateMode::punch_hole) {
      erase(range);
      inode_->note(range.offset < inode_->size
                       ? Range{range.offset, std::min(range.end(), inode_->size) - range.offset}
                       : Range{});
      return {};
    }
    for (std::uint64_t at = align_down(range.offset, block_size); at < range.end();
         at += block_size) {
      Block* block = provision(at / block_size);
      if (block == nullptr) return fault_only(ENOSPC);
      if (mode == FallocateMode::allocate) continue;
      const std::uint64_t start = std::max(at, range.offset);
      const std::uint64_t end = std::min(at + block_size, range.end());
      std::ranges::fill(std::span(block->data).subspan(start - at, end - start), std::byte{0});
      if (end - start == block_size) block->written = false;
    }
    if (mode == FallocateMode::allocate) {
      inode_->set_size(std::max(inode_->size, range.end()));
    } else {
      inode_->note(range);
    }
    return {};
  }

  int lock_error() {
    if (const int error = disk_.count(Call::lock); error != 0) return error;
    return disk_.traits.knows_locks ? 0 : EOPNOTSUPP;
  }
  void release_locks() {
    for (auto& [byte, holders] : inode_->locks) std::erase(holders, this);
  }

  Disk& disk_;
  Scheduler& scheduler_;
  const std::shared_ptr<Inode> inode_;
  OpenFlags flags_;
  std::optional<FileAccess> other_;
  const unsigned epoch_;
};

std::unique_ptr<EngineFile> SimEngine::take_over(std::unique_ptr<HandedFile>) {
  std::abort();  // it belongs to one worker
}

SysTask<std::unique_ptr<EngineFile>> SimEngine::open(const std::string& path, OpenFlags flags) {
  if (const int error = disk_.count(Call::open); error != 0) {
    co_return std::unexpected(Errno{error});
  }
  auto found = disk_.files_.find(path);
  if (flags.creation == Creation::exclusive) {
    if (found != disk_.files_.end()) co_return std::unexpected(Errno{EEXIST});
    disk_.make(path, 0);
    found = disk_.files_.find(path);
  }
  if (found == disk_.files_.end()) co_return std::unexpected(Errno{ENOENT});
  if (flags.access == FileAccess::read_write && found->second->read_only) {
    co_return std::unexpected(Errno{EACCES});
  }
  co_return std::make_unique<SimFile>(disk_, scheduler_, found->second, flags);
}

SysTask<> SimEngine::remove(const std::string& path) {
  if (const int error = disk_.count(Call::remove); error != 0) {
    co_return std::unexpected(Errno{error});
  }
  if (disk_.files_.erase(path) == 0) co_return std::unexpected(Errno{ENOENT});
  co_return SysResult<>();
}

}  // namespace sim
