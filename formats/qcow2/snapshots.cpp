// snapshots.cpp - internal snapshots: other L1 tables, over clusters that are shared. Each
// operation runs while nobody writes; what can't be ordered (counts and COPIED flags are in
// different places) happens while the image says that its counts may be wrong. QF-2 of
// docs/qcow2.md. Spec: qcow2.rst, "Snapshots".
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <utility>

#include "formats/qcow2/image.h"
#include "formats/qcow2/snapshot_table.h"

namespace formats::qcow2 {
namespace {

constexpr std::size_t entry_read = 64 * KiB;  // of the table at a time

}  // namespace

// Entry by entry: the table's length is known at its end only.
Task<> Image::load_snapshots() {
  std::uint64_t at = header_.snapshots_offset;
  const std::uint64_t limit = std::min(edges_.file->size(), at + snapshot_table_bytes_max);
  std::vector<std::byte> window;
  for (std::uint32_t i = 0; i < header_.snapshot_count; ++i) {
    if (at >= limit) {
      co_return std::unexpected(
          health_.corrupt(fmt::format("snapshot {} of {} at {:#x} lies behind the end of the table",
                                      i, header_.snapshot_count, at)));
    }
    std::uint64_t wanted = entry_read;
    std::optional<ParsedSnapshot> parsed;
    while (!parsed) {
      window.resize(std::min(wanted, limit - at));
      const Buffers list{std::span(window)};
      CO_CHECK(co_await edges_.file->read(at, list));
      const auto bytes = snapshot_entry_bytes(window);
      if (bytes && *bytes > window.size() && wanted < snapshot_entry_bytes_max &&
          window.size() == wanted) {
        wanted = snapshot_entry_bytes_max;
        continue;
      }
      auto entry = parse_snapshot(window, i);
      if (!entry) co_return std::unexpected(health_.corrupt(reason(entry.error())));
      parsed = std::move(*entry);
    }
    at += parsed->bytes;
    CO_CHECK(check_snapshot(parsed->snapshot));
    snapshots_.push_back(std::move(parsed->snapshot));
  }
  snapshot_table_ = {header_.snapshots_offset, at - header_.snapshots_offset};
  claim_table(snapshot_table_, "the snapshot table");
  for (const Snapshot& each : snapshots_) {
    CO_TRY(const L1Table l1,
           co_await read_l1(*edges_.file, health_, each.l1_table_offset, each.l1_size));
    guard(l1);
  }
  co_return ok;
}

// CVE-2014-0143, CVE-2014-0145: nothing of it is believed before it met its limit.
Result<> Image::check_snapshot(const Snapshot& snapshot) const {
  const std::uint64_t bytes = std::uint64_t{snapshot.l1_size} * 8;
  const bool sane = bytes <= l1_bytes_max &&
                    geometry().is_cluster_aligned(snapshot.l1_table_offset) &&
                    snapshot.l1_table_offset <= host_offset_max &&
                    snapshot.disk_size.value_or(0) <= geometry().size_max();
  if (sane) return ok;
  return std::unexpected(health_.fault(
      Errc::corrupt,
      fmt::format("snapshot '{}' has an L1 table of {} entries at {:#x}, which "
                  "can't be",
                  printable(snapshot.name), snapshot.l1_size, snapshot.l1_table_offset)));
}

// Its tables are metadata.
void Image::guard(const L1Table& l1) {
  metadata_.add({l1.offset, l1.entries.size() * 8});
  for (const std::uint64_t entry : l1.entries) {
    if ((entry & offset_mask) != 0) guard_table(entry & offset_mask);
  }
}

std::uint64_t Image::size_of(const Snapshot& snapshot) const {
  return snapshot.disk_size.value_or(size());
}

const Snapshot* Image::find_snapshot(std::string_view wanted) const {
  const auto by_id = std::ranges::find(snapshots_, wanted, &Snapshot::id);
  if (by_id != snapshots_.end()) return &*by_id;
  const auto by_name = std::ranges::find(snapshots_, wanted, &Snapshot::name);
  return by_name == snapshots_.end() ? nullptr : &*by_name;
}

Task<L1Table> Image::l1_of(const Snapshot& snapshot) {
  const std::uint64_t offset = snapshot.l1_table_offset;
  const std::uint64_t count = snapshot.l1_size;
  co_return co_await read_l1(*edges_.file, health_, offset, count);
}

// One reference more or less to everything that `l1` leads to. Errors: an increase that fails is
// undone.
Task<> Image::count_tree(const L1Table& l1, Step step) {
  for (std::size_t i = 0; i < l1.entries.size(); ++i) {
    Result<> done = co_await count_table(l1.entries[i], step, geometry().l2_entries());
    if (done) continue;
    while (step == Step::more && i-- > 0) {
      (void)co_await count_table(l1.entries[i], Step::less, geometry().l2_entries());
    }
    co_return done;
  }
  co_return ok;
}

// The first `entries` of an L2 table, and the table itself.
Task<> Image::count_table(std::uint64_t l1_entry, Step step, std::uint64_t entries) {
  const std::uint64_t table = l1_entry & offset_mask;
  if (table == 0) co_return ok;
  const std::uint64_t each = l2_cache_.slice_size() / geometry().l2_entry_bytes();
  for (std::uint64_t i = 0; i < entries; ++i) {
    const std::uint64_t host = table + i / each * l2_cache_.slice_size();
    CO_TRY(const TableCache::Ref slice, co_await l2_cache_.get(host));
    const auto cluster = decode_anywhere(load_entry(slice->bytes(), geometry(), i % each));
    Result<> done = ok;
    if (!cluster) {
      done = std::unexpected(cluster.error());
    } else if (const Range range = range_of(*cluster); !range.empty()) {
      done = co_await count(range, step);
    }
    if (done) continue;
    if (step == Step::more) (void)co_await count_table(l1_entry, Step::less_entries, i);
    co_return done;
  }
  if (step == Step::less_entries) co_return ok;
  const Range range{table, geometry().cluster_size()};
  Result<> done = co_await count(range, step);
  if (!done && step == Step::more) {
    (void)co_await count_table(l1_entry, Step::less_entries, entries);
  }
  if (done && step == Step::less) {
    CO_TRY(const std::uint64_t left, co_await refcounts_.get(table));
    if (left == 0) {
      l2_cache_.drop(range);
      metadata_.remove(range);
    }
  }
  co_return done;
}

Task<> Image::count(Range range, Step step) {
  if (step == Step::more) co_return co_await refcounts_.increase(range);
  compressed_.forget(range);
  leave_packed(range);
  if (passes_discard(FreedBy::snapshot)) co_await give_back(range);
  co_return co_await refcounts_.decrease(range);
}

// An entry of which nobody knows the guest offset.
Result<Cluster> Image::decode_anywhere(L2Entry entry) {
  auto cluster = decode(entry, rules_, entry.descriptor & offset_mask);
  if (cluster) return std::move(*cluster);
  return std::unexpected(health_.corrupt(cluster.error()));
}

Range Image::range_of(const Cluster& cluster) const {
  if (cluster.compressed) {
    return Range{cluster.place.offset, cluster.place.length}.widened(geometry().cluster_size());
  }
  if (cluster.has_host) return {cluster.host, geometry().cluster_size()};
  return {};
}

// COPIED means that the count is 1.
Task<> Image::set_copied_flags() {
  const std::uint64_t each = l2_cache_.slice_size() / geometry().l2_entry_bytes();
  for (std::uint64_t index = 0; index < active_.entries(); ++index) {
    const std::uint64_t table = active_.entry(index) & offset_mask;
    if (table == 0) continue;
    CO_TRY(const std::uint64_t references, co_await refcounts_.get(table));
    const std::uint64_t entry = table | (references == 1 ? copied_bit : 0);
    if (entry != active_.entry(index)) active_.set_entry(index, entry);
    for (std::uint64_t i = 0; i < geometry().l2_entries(); ++i) {
      const std::uint64_t host = table + i / each * l2_cache_.slice_size();
      CO_TRY(const TableCache::Ref slice, co_await l2_cache_.get(host));
      L2Entry l2 = load_entry(slice->bytes(), geometry(), i % each);
      if ((l2.descriptor & compressed_bit) != 0 || (l2.descriptor & offset_mask) == 0) continue;
      CO_TRY(const std::uint64_t count, co_await refcounts_.get(l2.descriptor & offset_mask));
      const bool copied = count == 1;
      if (copied == ((l2.descriptor & copied_bit) != 0)) continue;
      l2.descriptor ^= copied_bit;
      store_entry(l2_cache_.change(*slice), geometry(), i % each, l2);
    }
    CO_CHECK(co_await relieve());
  }
  l1_generation_ = generation_;
  flags_stale_ = false;
  co_return ok;
}

// Nothing is in memory only, nothing waits to be freed.
Task<> Image::settle() {
  do {
    CO_CHECK(co_await node_.flushes().flush(node_, graph::FlushDepth::disk));
    while (reaping_) co_await reaped_.wait();
  } while (!frees_.empty());
  co_return ok;
}

// From here on a crash leaves an image whose counts are to be rebuilt, as it says itself.
Task<> Image::begin_upheaval() {
  CO_CHECK(co_await begin_writing());
  CO_CHECK(co_await settle());
  flags_stale_ = true;
  if (header_.version < 3) co_return ok;
  CO_CHECK(co_await say_dirty());
  co_return co_await edges_.file->flush();
}

// Requires: the flags fit the counts.
Task<> Image::end_upheaval() {
  CO_CHECK(co_await settle());
  co_return co_await say_clean();
}

// The table with these snapshots, durable, at a place of its own. Empty: there is none.
Task<Range> Image::write_snapshot_table(const std::vector<Snapshot>& snapshots) {
  if (snapshots.empty()) co_return Range{};
  const auto table = format_snapshots(snapshots);
  if (!table) co_return std::unexpected(health_.fault(Errc::no_space, reason(table.error())));
  CO_TRY(const HostRun run, co_await refcounts_.allocate_table(geometry().clusters(table->size())));
  const ConstBuffers list{std::span<const std::byte>(*table)};
  Result<> done = co_await edges_.file->write(run.offset, list);
  if (!done) {
    co_await refcounts_.release(run);
    co_return std::unexpected(std::move(done).error());
  }
  co_return Range{run.offset, table->size()};
}

// The header tells of `snapshots` instead. Requires: all that they lead to is counted and durable.
Task<> Image::publish_snapshots(std::vector<Snapshot> snapshots) {
  CO_TRY(const Range table, co_await write_snapshot_table(snapshots));
  refcounts_.freeze();
  CO_CHECK(co_await write_refcounts());
  CO_CHECK(co_await edges_.file->flush());
  const Header before = header_;
  header_.snapshot_count = static_cast<std::uint32_t>(snapshots.size());
  header_.snapshots_offset = table.offset;
  Result<> done = co_await write_header();
  if (done) done = co_await edges_.file->flush();
  if (!done) {  // nobody knows which table the header tells of: both stay
    header_ = before;
    co_return done;
  }
  const Range old = std::exchange(snapshot_table_, table);
  snapshots_ = std::move(snapshots);
  metadata_.add(table);
  if (!old.empty()) {
    metadata_.remove(old);
    free_later(old, FreedBy::other);
  }
  co_return ok;
}

std::string Image::next_snapshot_id() const {
  std::uint64_t highest = 0;
  for (const Snapshot& each : snapshots_) {
    std::uint64_t number = 0;
    const auto [end, error] =
        std::from_chars(each.id.data(), each.id.data() + each.id.size(), number);
    if (error == std::errc() && end == each.id.data() + each.id.size()) {
      highest = std::max(highest, number);
    }
  }
  return std::to_string(highest + 1);
}

Task<graph::Port> Image::take_snapshot(std::string name) {
  const auto alone = co_await go_alone();
  if (edges_.data != edges_.file) {
    co_return std::unexpected(health_.fault(
        Errc::not_supported, "an image with an external data file can't have snapshots"));
  }
  if (std::ranges::find(snapshots_, name, &Snapshot::name) != snapshots_.end()) {
    co_return std::unexpected(health_.fault(
        Errc::invalid_argument, fmt::format("there is a snapshot '{}' already", printable(name))));
  }
  if (snapshots_.size() >= snapshots_max) {
    co_return std::unexpected(health_.fault(
        Errc::no_space, fmt::format("there are {} snapshots already", snapshots_max)));
  }
  Snapshot snapshot;
  snapshot.id = next_snapshot_id();
  snapshot.name = std::move(name);
  snapshot.disk_size = size();
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto seconds = std::chrono::floor<std::chrono::seconds>(now);
  snapshot.date_seconds = static_cast<std::uint32_t>(seconds.count());
  snapshot.date_nanoseconds =
      static_cast<std::uint32_t>(std::chrono::nanoseconds(now - seconds).count());
  CO_CHECK(co_await begin_upheaval());
  CO_CHECK(co_await copy_active(snapshot));
  CO_CHECK(co_await set_copied_flags());
  // nobody may write in place any more before the header tells of the snapshot
  CO_CHECK(co_await settle());
  std::vector<Snapshot> all = snapshots_;
  all.push_back(snapshot);
  CO_CHECK(co_await publish_snapshots(std::move(all)));
  CO_CHECK(co_await end_upheaval());
  co_return port_of(snapshot, size());
}

// Its L1 table is a copy of the active one, and everything below has two users.
Task<> Image::copy_active(Snapshot& snapshot) {
  const L1Table& l1 = active_.table();
  CO_CHECK(co_await count_tree(l1, Step::more));
  std::vector<Be<std::uint64_t>> raw;
  for (const std::uint64_t entry : l1.entries) raw.emplace_back(entry & ~copied_bit);
  Result<HostRun> run = co_await refcounts_.allocate_table(
      std::max<std::uint64_t>(1, geometry().clusters(raw.size() * 8)));
  Result<> done = ok;
  if (!run) done = std::unexpected(run.error());
  const ConstBuffers list(std::as_bytes(std::span(raw)));
  if (done) done = co_await edges_.file->write(run->offset, list);
  if (!done) {
    if (run) co_await refcounts_.release(*run);
    (void)co_await count_tree(l1, Step::less);
    co_return done;
  }
  snapshot.l1_table_offset = run->offset;
  snapshot.l1_size = static_cast<std::uint32_t>(l1.entries.size());
  metadata_.add({run->offset, run->length});
  co_return ok;
}

Task<graph::Port> Image::delete_snapshot(std::string wanted) {
  const auto alone = co_await go_alone();
  const Snapshot* found = find_snapshot(wanted);
  if (found == nullptr) co_return std::unexpected(no_snapshot(wanted));
  CO_CHECK(check_unused(*found));
  const Snapshot gone = *found;
  CO_TRY(const L1Table l1, co_await l1_of(gone));
  CO_CHECK(co_await begin_upheaval());
  std::vector<Snapshot> left = snapshots_;
  std::erase(left, gone);
  CO_CHECK(co_await publish_snapshots(std::move(left)));
  CO_CHECK(co_await forget_tree(l1));
  co_return port_of(gone, size_of(gone));
}

// What fails leaves clusters leaked, and flags that are right, or an image that says that it is to
// be repaired.
Task<> Image::forget_tree(const L1Table& l1) {
  Result<> dropped = co_await drop_tree(l1);
  CO_CHECK(co_await set_copied_flags());
  CO_CHECK(co_await end_upheaval());
  co_return dropped;
}

// An L1 table that nothing on the medium leads to any more, and what it leads to.
Task<> Image::drop_tree(const L1Table& l1) {
  CO_CHECK(co_await count_tree(l1, Step::less));
  const std::uint64_t bytes = std::max<std::uint64_t>(l1.entries.size() * 8, 1);
  const Range table = Range{l1.offset, bytes}.widened(geometry().cluster_size());
  if (l1.offset == 0) co_return ok;
  metadata_.remove(table);
  co_return co_await count(table, Step::less);
}

// The disk becomes what the snapshot is, its size too.
Task<> Image::apply_snapshot(std::string wanted) {
  const auto alone = co_await go_alone();
  const Snapshot* found = find_snapshot(wanted);
  if (found == nullptr) co_return std::unexpected(no_snapshot(wanted));
  const Snapshot applied = *found;
  if (size_of(applied) != size()) CO_CHECK(check_bitmaps_fit(size_of(applied)));
  CO_TRY(L1Table l1, co_await l1_of(applied));
  CO_CHECK(co_await begin_upheaval());
  CO_CHECK(co_await count_tree(l1, Step::more));
  // as many entries as the snapshot's disk needs
  const std::uint64_t new_size = size_of(applied);
  l1.entries.resize(std::max<std::uint64_t>(l1.entries.size(), geometry().l1_entries(new_size)));
  std::vector<Be<std::uint64_t>> raw;
  for (std::uint64_t& entry : l1.entries) raw.emplace_back(entry &= ~copied_bit);
  Result<HostRun> run = co_await refcounts_.allocate_table(
      std::max<std::uint64_t>(1, geometry().clusters(raw.size() * 8)));
  Result<> done = ok;
  if (!run) done = std::unexpected(run.error());
  const ConstBuffers list(std::as_bytes(std::span(raw)));
  if (done) done = co_await edges_.file->write(run->offset, list);
  if (!done) {
    (void)co_await count_tree(l1, Step::less);
    co_return done;
  }
  l1.offset = run->offset;
  refcounts_.freeze();
  CO_CHECK(co_await write_refcounts());
  CO_CHECK(co_await edges_.file->flush());
  header_.l1_table_offset = l1.offset;
  header_.l1_size = static_cast<std::uint32_t>(l1.entries.size());
  header_.size = new_size;
  node_.bitmaps().mark({0, node_.size()});  // whatever comes of it
  CO_CHECK(co_await write_header());
  CO_CHECK(co_await edges_.file->flush());
  const L1Table old = active_.table();
  guard(l1);
  active_.set_table(std::move(l1));
  Result<> forgotten = co_await forget_tree(old);
  node_.refresh_size();
  node_.bitmaps().mark({0, node_.size()});
  co_return forgotten;
}

Error Image::no_snapshot(std::string_view wanted) const {
  return health_.fault(Errc::invalid_argument,
                       fmt::format("there is no snapshot '{}'", printable(wanted)));
}

// Who looks at a snapshot keeps it. The refusal names them.
Result<> Image::check_unused(const Snapshot& snapshot) const {
  std::string users;
  for (const SnapshotUser* user : snapshot_users_) {
    if (user->snapshot_id() != snapshot.id) continue;
    if (!users.empty()) users += ", ";
    users += user->describe_users();
  }
  if (users.empty()) return ok;
  return std::unexpected(health_.fault(
      Errc::busy, fmt::format("snapshot '{}' is in use by {}", printable(snapshot.name), users)));
}

}  // namespace formats::qcow2
