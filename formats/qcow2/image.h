// image.h - an open image: what is known of it, and every operation on its guest's bytes. The node
// (node.cpp) is its face to the graph. One job per file: image.cpp opens and marks, read.cpp,
// write.cpp, zero.cpp, flush.cpp (the order in which things reach the medium), frees.cpp (when a
// cluster may be used again), resize.cpp, snapshots.cpp, bitmaps.cpp. The invariants that span them
// are in docs/qcow2.md.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "formats/qcow2/bitmaps.h"
#include "formats/qcow2/cache_cleaner.h"
#include "formats/qcow2/compressed_cache.h"
#include "formats/qcow2/epochs.h"
#include "formats/qcow2/mapping.h"
#include "formats/qcow2/refcounts.h"
#include "formats/qcow2/snapshot_table.h"
#include "graph/request_tracker.h"

namespace formats::qcow2 {

// Why a cluster was freed: decides whether its space is given back to the file (QF-7).
enum class FreedBy : std::uint8_t { request, snapshot, other };

enum class Discards : std::uint8_t { keep, pass };

struct ImageOptions {
  std::size_t l2_cache = 32 * MiB;       // bytes, at most
  std::size_t l2_slice = 4 * KiB;        // bytes, a power of two; a cluster at most
  std::size_t refcount_cache = 1 * MiB;  // bytes, at most
  Clock::Duration clean_interval{0};     // after which unused tables are forgotten; 0: never
  Discards pass_request = Discards::pass;
  Discards pass_snapshot = Discards::pass;
  Discards pass_other = Discards::keep;
  bool discard_no_unref = false;
  bool read_only = false;              // for good
  std::optional<bool> lazy_refcounts;  // default: as the image says
};

// What the image lies on. `data` is `file` where there is no external data file.
struct ImageEdges {
  graph::Edge* file = nullptr;
  graph::Edge* data = nullptr;
  graph::Edge* backing = nullptr;  // null: unallocated bytes read as zero
};

// Who looks at a snapshot.
class SnapshotUser {
 public:
  virtual ~SnapshotUser() = default;
  virtual const std::string& snapshot_id() const = 0;
  // "export 'monday', node 'x'"
  virtual std::string describe_users() const = 0;
};

// What befell the tables or a child, told as where the guest's bytes are that it befell.
template <class T>
Result<T> at_guest(Result<T> done, std::uint64_t guest) {
  if (!done) done.error().offset = guest;
  return done;
}

// A failure of a child, in bytes of the guest: `child` is where `guest` lies there.
Result<> seen_by_guest(Result<> done, std::uint64_t child, std::uint64_t guest);

class Image {
 public:
  // Lifetime: node and edges outlive it.
  // `first_sector`: of the file, as it is.
  Image(graph::Node& node, std::string name, Home& home, ImageEdges edges, Header header,
        std::vector<std::byte> first_sector, ImageOptions options);
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;
  ~Image();

  // Reads the tables. Errors: corrupt, io_error.
  Task<> open();
  // Whether somebody may write from now on. Errors: permission_denied for a corrupt image.
  Result<> check_writable() const;
  void set_writable(bool writable) { health_.set_writable(writable); }
  // Nobody writes any more: what is left to be written is. Errors: as the file; what was flushed
  // before is safe all the same.
  Task<> finish_writing();
  // Waits for what goes on behind the requests.
  asio::awaitable<void> close();

  const Header& header() const { return header_; }
  const Geometry& geometry() const { return header_.geometry; }
  std::uint64_t size() const { return header_.size; }
  const ImageEdges& edges() const { return edges_; }
  // Between two workers. Requires: nothing is in flight.
  void leave_worker();
  void enter_worker(Home& home);
  Health& health() { return health_; }

  // How the bytes of `mapping` from `guest` on live, and a pin that keeps them there.
  Task<> read(std::uint64_t guest, const Buffers& out);
  Task<> read_of(Mapping& mapping, std::uint64_t guest, const Buffers& out);
  Task<graph::Extents> map(Range range);
  Task<graph::Extents> map_of(Mapping& mapping, Range range);

  Task<> write(std::uint64_t guest, const ConstBuffers& data, graph::WriteFlags flags);
  Task<> write_zeroes(Range range, graph::ZeroFlags flags);
  Task<> discard(Range range);
  // Errors: invalid_argument (too large), not_supported (version 2 with snapshots), no_space.
  Task<> resize(std::uint64_t new_size);

  // Snapshots, see snapshots.cpp. By id, or else by name. Changing them: Requires: no request is
  // in flight. Errors: invalid_argument (no such snapshot), busy (in use, by whom), no_space.
  const std::vector<Snapshot>& snapshots() const { return snapshots_; }
  const Snapshot* find_snapshot(std::string_view wanted) const;
  std::uint64_t size_of(const Snapshot& snapshot) const;
  Task<L1Table> l1_of(const Snapshot& snapshot);
  Error no_snapshot(std::string_view wanted) const;
  void add_user(const SnapshotUser& user) { snapshot_users_.push_back(&user); }
  void remove_user(const SnapshotUser& user) { std::erase(snapshot_users_, &user); }
  Mapping mapping_of(L1Table l1);
  Task<graph::Port> take_snapshot(std::string name);
  Task<graph::Port> delete_snapshot(std::string wanted);
  Task<> apply_snapshot(std::string wanted);
  // Whoever changes tables as a whole goes alone.
  asio::awaitable<graph::RequestTracker::Claim> go_alone() {
    return upheavals_.claim({0, 1}, graph::RequestTracker::Hold::exclusive);
  }

  // Persistent bitmaps, see bitmaps.cpp and node.h.
  // Errors: not_supported (version 2), permission_denied (read-only), invalid_argument, no_space.
  Result<> check_new_bitmap(const std::string& name, std::uint64_t granularity) const;
  // Takes it out of the image, if it is there. Requires: no request is in flight.
  Task<> forget_bitmap(std::string name);

  // Two halves of a flush, see flush.cpp.
  Task<> flush_to_children();
  void flush_done();

  Mapping& active() { return active_; }
  std::size_t frees_pending() const { return frees_.size(); }
  // Of L2 tables and refcount blocks in memory.
  std::size_t cached_bytes() const { return l2_cache_.bytes() + refcounts_.blocks().bytes(); }

 private:
  // image.cpp
  Task<> begin_writing() { return writing_ ? succeeded() : first_write(); }
  Task<> first_write();
  Task<> write_header();
  Task<> say_dirty();
  Task<> say_clean();
  Task<> mark_corrupt();
  bool clean_caches();
  void claim_tables();
  void claim_table(Range range, std::string_view what);
  Task<> tell(Task<> work);  // its result; the image is marked if it turned out to be corrupt
  graph::Extent extent_of(const Run& run, std::uint64_t guest);

  // write.cpp
  struct Plan;
  Task<std::uint64_t> write_some(std::uint64_t guest, const ConstBuffers& data);
  Task<std::uint64_t> write_planned(std::uint64_t guest, const ConstBuffers& data);
  Task<Plan> plan(std::uint64_t guest, std::uint64_t length);
  Task<> place(Plan& plan);
  Task<> put(Plan& plan, std::uint64_t guest, const ConstBuffers& data);
  Task<> link(const Plan& plan);
  Task<> write_all(std::uint64_t guest, const ConstBuffers& data, graph::WriteFlags flags);
  Task<> write_in_place(Epochs::Pin pin, std::uint64_t host, std::uint64_t guest,
                        const ConstBuffers& data, graph::WriteFlags flags);
  Task<> read_data(Epochs::Pin pin, std::uint64_t host, std::uint64_t guest, const Buffers& out);
  Task<> read_run(const Run& run, std::uint64_t guest, const Buffers& out);
  Task<> read_behind(std::uint64_t guest, const Buffers& out);
  Range filled_range(const Plan& plan, std::uint64_t guest, std::uint64_t length) const;
  Task<> fetch_old(const Plan& plan, Range range, PooledBuffer& bytes);
  Task<> copy_l2(std::uint64_t old, std::span<std::byte> copy);
  Task<> write_compressed(std::uint64_t guest, const ConstBuffers& data);
  Task<bool> pack(std::uint64_t guest, const ConstBuffers& data);
  Task<> link_compressed(std::uint64_t guest, L2Entry entry);
  Task<CompressedPlace> room_for(std::uint64_t length);
  void leave_packed(Range host);
  Task<CompressedPlace> take_room(std::uint64_t length, std::uint64_t unit);
  bool is_durable(std::uint64_t guest);
  Task<HostRun> allocate(std::uint64_t clusters);
  Task<> own_l2(std::uint64_t guest);
  Task<std::uint64_t> new_l2(std::uint64_t old);
  Result<> check_overlap(Range host, std::uint64_t guest);
  Task<> relieve();  // writes metadata back when too much of it waits

  // zero.cpp
  enum class ZeroKind : std::uint8_t { write_zeroes, discard };
  Task<> zero_whole(Range range, ZeroKind kind, graph::ZeroFlags flags);
  Task<> zero_claimed(Range range, ZeroKind kind, graph::ZeroFlags flags);
  Task<> zero_slice(Range range, ZeroKind kind, graph::ZeroFlags flags);
  Task<> place_slice(Range range, graph::ZeroFlags flags);
  Task<> give_places(TableCache::Slice& slice, Range clusters, Range zeroed,
                     graph::ZeroFlags flags);
  Task<HostRun> take_place(Range guest, graph::ZeroFlags flags);
  Task<> reserve(Range host, graph::ZeroFlags flags);
  std::optional<Cluster> zeroed(const Cluster& old, std::uint32_t bits, ZeroKind kind,
                                graph::ZeroFlags flags) const;
  Task<> zero_range(Range range, graph::ZeroFlags flags);
  Task<> zero_part(Range part, graph::ZeroFlags flags);
  Task<> discard_range(Range range);
  Task<bool> rest_reads_zero(Range part);
  Task<> write_zeroes_claimed(Range range);
  Task<bool> reads_zero(Range range);
  Task<> write_zero_data(Range range);

  // resize.cpp
  Task<> resize_checked(std::uint64_t new_size);
  Task<> grow(std::uint64_t new_size);
  Task<> zero_new(std::uint64_t old_size, std::uint64_t new_size);
  Task<> grow_l1(std::uint64_t entries);
  Task<> shrink(std::uint64_t new_size);
  Task<> unlink_behind(std::uint64_t new_size, std::uint64_t old_size);
  void drop_l2(std::uint64_t guest);
  Task<> cut_tail();

  // flush.cpp
  Task<> write_refcounts();
  bool may_postpone_refcounts() const;

  // snapshots.cpp
  enum class Step : std::uint8_t { more, less, less_entries };
  Task<> load_snapshots();
  Result<> check_snapshot(const Snapshot& snapshot) const;
  void guard(const L1Table& l1);
  void guard_table(std::uint64_t host);
  Task<> count_tree(const L1Table& l1, Step step);
  Task<> count_table(std::uint64_t l1_entry, Step step, std::uint64_t entries);
  Task<> count(Range range, Step step);
  Result<Cluster> decode_anywhere(L2Entry entry);
  Range range_of(const Cluster& cluster) const;
  Task<> set_copied_flags();
  Task<> settle();
  Task<> begin_upheaval();
  Task<> end_upheaval();
  Task<Range> write_snapshot_table(const std::vector<Snapshot>& snapshots);
  Task<> publish_snapshots(std::vector<Snapshot> snapshots);
  std::string next_snapshot_id() const;
  Task<> copy_active(Snapshot& snapshot);
  Task<> forget_tree(const L1Table& l1);
  Task<> drop_tree(const L1Table& l1);
  Result<> check_unused(const Snapshot& snapshot) const;

  // header_change.cpp
  Task<> rewrite_header();
  Task<> replace_first_sector(std::span<const std::byte> cluster);

  // bitmaps.cpp
  bool believes_bitmaps() const;
  Error bitmap_fault(const Bitmap& bitmap, std::string_view what);
  Task<> load_bitmaps();
  Task<std::vector<std::uint64_t>> read_bitmap_table(const Bitmap& bitmap);
  Result<std::vector<Range>> guard_bitmap(const Bitmap& bitmap,
                                          const std::vector<std::uint64_t>& table);
  Task<> show_bitmap(const Bitmap& entry, const std::vector<std::uint64_t>& table);
  Task<> load_bits(graph::DirtyBitmap& bitmap, const std::vector<std::uint64_t>& table);
  Task<> mark_bitmaps_in_use();
  Task<> drop_stale_bitmaps();
  Task<bool> bitmaps_changed();
  Task<bool> is_as_stored(const graph::DirtyBitmap& bitmap, const Bitmap& entry);
  Task<> store_bitmaps();
  Task<StoredBitmap> store_bitmap(const graph::DirtyBitmap& bitmap, Bitmap entry);
  Task<> put_bitmap(const graph::DirtyBitmap& bitmap, StoredBitmap& stored);
  asio::awaitable<void> take_back(Range clusters);
  void free_metadata(Range clusters);
  Task<> publish_bitmaps(std::vector<StoredBitmap> bitmaps);
  Result<> check_bitmaps_fit(std::uint64_t new_size) const;

  // frees.cpp
  struct Freed {
    Range host;
    FreedBy by;
    std::uint64_t epoch;
    std::uint64_t generation;
    bool in_data_file;
    std::uint64_t serial;  // of those in the data file
  };
  void free_later(Range host, FreedBy by);
  void free_cluster(const Cluster& cluster, FreedBy by);
  bool passes_discard(FreedBy by) const;
  asio::awaitable<void> give_back(Range host);
  asio::awaitable<void> forget_tables(Range host);
  asio::awaitable<void> keep_data(Range host);
  asio::awaitable<void> give_back_data(const Freed& freed);
  asio::awaitable<void> reap();
  Task<bool> reclaim();

  graph::Node& node_;
  Home* home_;
  const ImageEdges edges_;
  Header header_;
  std::vector<std::byte> first_sector_;
  ImageOptions options_;
  Health health_;
  EntryRules rules_;
  MetadataMap metadata_;
  Refcounts refcounts_;
  TableCache l2_cache_;
  CacheCleaner cleaner_;
  Mapping active_;
  CompressedCache compressed_;
  Epochs epochs_;
  graph::RequestTracker changes_;     // guest clusters whose mapping somebody is changing
  graph::RequestTracker l2_changes_;  // of L2 tables, by index in L1
  bool writing_ = false;
  bool first_write_runs_ = false;
  bool flags_stale_ = false;  // COPIED may not fit the counts, as after a change that failed
  WaitQueue first_write_ended_;
  graph::RequestTracker upheavals_;  // one change of the image's tables at a time

  std::deque<Freed> frees_;
  // Clusters of the external data file that nothing refers to, and the last time that this began.
  std::unordered_map<std::uint64_t, std::uint64_t> data_frees_;
  std::uint64_t data_frees_made_ = 0;
  Range data_discard_;  // under way
  WaitQueue data_discarded_;
  std::uint64_t generation_ = 1;  // of frees: counts flushes begun
  std::uint64_t frozen_generation_ = 0;
  std::uint64_t durable_generation_ = 0;
  std::uint64_t durable_freeze_ = 0;  // of the L2 cache
  std::uint64_t frozen_freeze_ = 0;
  std::uint64_t l1_generation_ = 0;  // the last change of L1
  std::optional<Share> helpers_;     // its share of the worker's
  bool reaping_ = false;
  std::uint64_t reaps_ = 0;  // entries of frees_ that were dealt with, ever
  Gate background_;
  WaitQueue reaped_;

  std::vector<Snapshot> snapshots_;
  Range snapshot_table_;                      // in the file, in bytes
  std::vector<StoredBitmap> stored_bitmaps_;  // as the directory on the medium tells
  Range bitmap_directory_;                    // in the file, in bytes
  std::vector<const SnapshotUser*> snapshot_users_;

  std::uint64_t packed_at_ = 0;  // where the next compressed cluster may start, 0: in a new one
  bool packing_ = false;
  WaitQueue packed_;
};

}  // namespace formats::qcow2
