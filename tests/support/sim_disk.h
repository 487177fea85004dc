// sim_disk.h - a disk that lives in memory and has the vices of real ones: short counts,
// interrupted and failing calls, latency, no space, a cache that a power cut empties. Several
// engines over one disk are several processes.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "graph/base/engine.h"
#include "tests/support/sim_executor.h"

namespace sim {

enum class Call : std::uint8_t {
  open,
  remove,
  read_now,
  write_now,
  read,
  write,
  sync,
  fallocate,
  device,
  truncate,
  seek,
  status,
  will_need,
  reopen,
  lock,
  close,
};
inline constexpr std::size_t call_count = 16;

struct DiskTraits {
  bool is_quick = true;
  bool reads_now = true;  // false: read_now says EOPNOTSUPP
  bool punches_holes = true;
  bool zeroes_ranges = true;
  bool knows_holes = true;
  bool knows_locks = true;
  bool discards = true;        // devices: BLKDISCARD
  bool zeroes_quickly = true;  // devices: FileStatus::zeroes_quickly
  // A call that is cut short ends between two sectors, as the medium's own writes do: what formats
  // rely on. Off: anywhere.
  bool whole_sectors = false;
  std::uint32_t direct_alignment = 512;
  std::uint64_t capacity = std::numeric_limits<std::uint64_t>::max();  // bytes, in blocks of 4096
};

// How often what is legal and rare happens: one call in so many; 0: never.
struct Chaos {
  unsigned short_counts = 0;
  unsigned interrupts = 0;  // EINTR
  unsigned delays = 0;      // calls that suspend
};

class Disk {
 public:
  explicit Disk(std::uint64_t seed, DiskTraits disk_traits = {});
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;
  ~Disk();

  DiskTraits traits;
  Chaos chaos;

  // A file that is on the medium already.
  void make(const std::string& path, std::vector<std::byte> content);
  void make(const std::string& path, std::uint64_t size);
  // A block device, of blocks of 512 bytes.
  void make_device(const std::string& path, std::uint64_t size);
  void protect(const std::string& path);  // may only be read
  // Somebody else changes the size.
  void cut(const std::string& path, std::uint64_t size);
  bool exists(const std::string& path) const;
  std::vector<std::byte> content(const std::string& path) const;
  std::uint64_t size(const std::string& path) const;
  std::uint64_t allocated(const std::string& path) const;  // bytes
  bool is_locked(const std::string& path, std::uint64_t byte) const;

  // The `nth` call of its kind from now on fails, 1 being the next.
  void fail(Call call, unsigned nth, int error);
  // One call of the kind in `one_in` fails; 0 ends it.
  void fail_some(Call call, unsigned one_in, int error);
  unsigned calls(Call call) const { return count_[static_cast<std::size_t>(call)]; }

  // From now on every call fails with EIO and changes nothing.
  void power_off() { on_ = false; }
  // The same, `calls` calls from now.
  void power_off_after(unsigned calls) { calls_left_ = calls; }
  // The power fails and comes back: what was not synced is lost, kept, or there in an older
  // version, sector by sector; so is the size. Files that are open are good for nothing.
  void crash();

 private:
  friend class SimEngine;
  friend class SimFile;
  struct Inode;
  // 0, or the errno that this call is to fail with.
  int count(Call call);
  bool one_in(unsigned n) { return n > 0 && random_() % n == 0; }
  std::uint64_t choose(std::uint64_t n) { return random_() % n; }
  Inode* find(const std::string& path) const;

  struct Failure {
    unsigned at = 0;  // count of the call that fails, 0: none
    int error = 0;
    unsigned some = 0;
    int some_error = 0;
  };
  std::mt19937_64 random_;
  std::map<std::string, std::shared_ptr<Inode>> files_;
  std::array<unsigned, call_count> count_{};
  std::array<std::vector<Failure>, call_count> failures_;
  std::uint64_t used_blocks_ = 0;
  unsigned calls_left_ = 0;  // until the power goes; 0: it stays
  unsigned epoch_ = 0;       // counts crashes
  bool on_ = true;
};

// What one process sees of a disk.
class SimEngine final : public Engine {
 public:
  SimEngine(Disk& disk, Scheduler& scheduler) : disk_(disk), scheduler_(scheduler) {}
  std::string_view name() const override { return "simulation"; }
  SysTask<std::unique_ptr<EngineFile>> open(const std::string& path, OpenFlags flags) override;
  std::unique_ptr<EngineFile> take_over(std::unique_ptr<HandedFile> file) override;
  SysTask<> remove(const std::string& path) override;

 private:
  Disk& disk_;
  Scheduler& scheduler_;
};

}  // namespace sim
