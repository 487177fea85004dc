// table_cache.h - L2 tables or refcount blocks in memory, in slices: what is read, changed and
// written at a time. A slice that is missing is read once, however many wait for it; a changed one
// stays until it is written. Nothing here knows what the bytes mean.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "graph/base/wait_queue.h"
#include "graph/edge.h"

namespace formats::qcow2 {

class TableCache {
 public:
  class Slice {
   public:
    explicit Slice(std::uint64_t host, std::size_t size) : host_(host), bytes_(size) {}
    std::uint64_t host() const { return host_; }  // where it lies in the file, in bytes
    std::span<const std::byte> bytes() const { return bytes_; }
    bool dirty() const { return dirty_; }
    // The number of the freeze() that it was last given to the file for, or loaded after.
    std::uint64_t written() const { return written_; }

   private:
    friend class TableCache;
    enum class State : std::uint8_t { loading, ready, gone };
    std::uint64_t host_;
    std::vector<std::byte> bytes_;
    std::vector<std::byte> frozen_;  // what it was at freeze(), once it has changed since
    State state_ = State::loading;
    bool dirty_ = false;
    bool frozen_dirty_ = false;  // it was dirty at freeze(), and is not written yet
    bool used_ = true;           // since the clock's hand was here
    std::uint64_t written_ = 0;
    std::list<Slice*>::iterator place_;
  };
  // Keeps the slice where it is while held.
  using Ref = std::shared_ptr<Slice>;

  // Lifetime: `file` outlives the cache. `load_event` is told before each read.
  TableCache(graph::Edge& file, std::size_t slice_size, std::size_t bytes_max,
             graph::DebugEvent load_event, graph::DebugEvent update_event);
  TableCache(const TableCache&) = delete;
  TableCache& operator=(const TableCache&) = delete;
  ~TableCache();

  std::size_t slice_size() const { return slice_size_; }
  std::uint64_t slice_start(std::uint64_t host) const { return align_down(host, slice_size_); }

  // The slice at `host`, if it is here; stays valid until the next co_await.
  Slice* find(std::uint64_t host);
  // The slice at `host`, a multiple of slice_size(). What lies behind the end of the file is zero.
  // Errors: as reading the file; then nothing is kept, and the next one tries again.
  Task<Ref> get(std::uint64_t host);
  // For a table that nobody has seen yet and that is zero on the medium.
  Ref make(std::uint64_t host);
  // Bytes to be changed; it has to be written from now on.
  std::span<std::byte> change(Slice& slice);
  // The table in `range` is no more: neither kept nor written.
  void drop(Range range);

  bool dirty() const { return !dirty_.empty(); }
  std::size_t dirty_bytes() const { return dirty_.size() * slice_size_; }
  std::size_t bytes_max() const { return bytes_max_; }
  std::size_t bytes() const { return slices_.size() * slice_size_; }
  void set_bytes_max(std::size_t bytes) { bytes_max_ = std::max(bytes, 4 * slice_size_); }
  // Forgets clean slices that nobody has used since the last time (cache-clean-interval). False
  // when the next time has nothing to do unless something is loaded or written meanwhile.
  bool forget_unused();
  // Called when a slice has come in.
  void when_filled(std::function<void()> filled) { filled_ = std::move(filled); }

  // What is dirty now is what write_frozen() writes, whatever changes meanwhile. A freeze that
  // was not written to its end is taken over by the next. False when nothing is dirty.
  bool freeze();
  // Errors: the first failure; what was not written stays dirty.
  Task<> write_frozen();
  std::uint64_t freezes() const { return freezes_; }

 private:
  Task<> load(Slice& slice);
  Task<> write_run(std::span<const Ref> run);
  void insert(const Ref& slice);
  void make_room();

  graph::Edge& file_;
  const std::size_t slice_size_;
  std::size_t bytes_max_;
  const graph::DebugEvent load_event_;
  const graph::DebugEvent update_event_;
  std::unordered_map<std::uint64_t, Ref> slices_;
  std::list<Slice*> clock_;  // in the order of the hand, which is at the front
  std::unordered_map<std::uint64_t, Ref> dirty_;
  std::vector<Ref> frozen_;
  std::uint64_t freezes_ = 0;
  WaitQueue loaded_;
  std::function<void()> filled_;
};

}  // namespace formats::qcow2
