// bitmaps.cpp - persistent dirty bitmaps: loaded when the image is opened, marked as in use before
// its first change, and stored when nobody changes it any more, at new places, so that the old ones
// are whole until the header tells of the new. What a crash leaves is in use, and believed by
// nobody. Spec: qcow2.rst, "Bitmaps extension", "Bitmaps".
#include "formats/qcow2/bitmaps.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "formats/qcow2/image.h"

namespace formats::qcow2 {
namespace {

constexpr std::uint64_t piece_bytes = 256 * KiB;  // read or written at a time, at least a cluster
constexpr std::uint64_t tables_bytes_max = 512 * MiB;  // of all bitmaps together

std::vector<Bitmap> entries_of(const std::vector<StoredBitmap>& bitmaps) {
  std::vector<Bitmap> entries;
  for (const StoredBitmap& each : bitmaps) entries.push_back(each.entry);
  return entries;
}

void add_run(std::vector<Range>& runs, Range range) {
  if (!runs.empty() && runs.back().end() == range.offset) {
    runs.back().length += range.length;
  } else {
    runs.push_back(range);
  }
}

// What the bits of one cluster of a bitmap say.
struct Part {
  std::uint64_t first = 0;  // granule
  BitmapTableEntry::Kind kind = BitmapTableEntry::Kind::zeroes;
};
Part part_of(const graph::DirtyBitmap& bitmap, std::uint64_t index, std::uint64_t cluster_size) {
  using Kind = BitmapTableEntry::Kind;
  Part part;
  part.first = index * cluster_size * 8;
  if (part.first >= bitmap.granules()) return part;
  const std::uint64_t start = part.first * bitmap.granularity();
  const std::uint64_t most = cluster_size * 8 * bitmap.granularity();
  const Range covered{start, std::min(most, bitmap.size() - start)};
  const std::uint64_t dirty = bitmap.dirty_bytes_in(covered);
  if (dirty != 0) part.kind = dirty == covered.length ? Kind::ones : Kind::stored;
  return part;
}

bool is_kept(const graph::DirtyBitmap& bitmap) {
  return bitmap.persistent() && !bitmap.inconsistent();
}

}  // namespace

bool Image::believes_bitmaps() const {
  return header_.version >= 3 && header_.bitmaps &&
         (header_.autoclear_features & autoclear::bitmaps) != 0;
}

Error Image::bitmap_fault(const Bitmap& bitmap, std::string_view what) {
  return health_.corrupt(fmt::format("bitmap '{}': {}", printable(bitmap.name), what));
}

Task<> Image::load_bitmaps() {
  if (!believes_bitmaps()) co_return ok;
  const BitmapsExtension& told = *header_.bitmaps;
  const Range place{told.directory_offset, told.directory_size};
  if (!place.lies_within(edges_.file->size())) {
    co_return std::unexpected(health_.corrupt(
        fmt::format("the bitmap directory of {} bytes at {:#x} leaves the file of {} bytes",
                    place.length, place.offset, edges_.file->size())));
  }
  if (!metadata_.add(place)) {
    co_return std::unexpected(health_.corrupt(
        fmt::format("the bitmap directory at {:#x} overlaps other metadata", place.offset)));
  }
  std::vector<std::byte> directory(place.length);
  const Buffers list{std::span(directory)};
  CO_CHECK(co_await edges_.file->read(place.offset, list));
  auto entries = parse_bitmap_directory(directory, told.count, geometry(), size());
  if (!entries) co_return std::unexpected(health_.corrupt(reason(entries.error())));
  bitmap_directory_ = place;
  std::uint64_t tables = 0;
  for (Bitmap& entry : *entries) {
    tables += std::uint64_t{entry.table_size} * 8;
    if (tables > tables_bytes_max) {
      co_return std::unexpected(bitmap_fault(
          entry, fmt::format("the tables of all bitmaps take more than {} bytes, which can't be",
                             tables_bytes_max)));
    }
    StoredBitmap stored;
    stored.entry = std::move(entry);
    CO_TRY(const auto table, co_await read_bitmap_table(stored.entry));
    CO_TRY(stored.clusters, guard_bitmap(stored.entry, table));
    stored_bitmaps_.push_back(std::move(stored));
    CO_CHECK(co_await show_bitmap(stored_bitmaps_.back().entry, table));
  }
  co_return ok;
}

Task<std::vector<std::uint64_t>> Image::read_bitmap_table(const Bitmap& bitmap) {
  const Range place{bitmap.table_offset, std::uint64_t{bitmap.table_size} * 8};
  if (!place.lies_within(edges_.file->size())) {
    co_return std::unexpected(
        bitmap_fault(bitmap, fmt::format("the table of {} entries at {:#x} leaves the file of {} "
                                         "bytes",
                                         bitmap.table_size, place.offset, edges_.file->size())));
  }
  std::vector<Be<std::uint64_t>> raw(bitmap.table_size);
  const Buffers list(std::as_writable_bytes(std::span(raw)));
  CO_CHECK(co_await edges_.file->read(place.offset, list));
  co_return std::vector<std::uint64_t>(raw.begin(), raw.end());
}

// Its table and its bits are metadata, and nobody else's.
Result<std::vector<Range>> Image::guard_bitmap(const Bitmap& bitmap,
                                               const std::vector<std::uint64_t>& table) {
  const auto unit = geometry().cluster_size();
  std::vector<Range> clusters;
  const auto take = [&](Range range) {
    add_run(clusters, range);
    return metadata_.add(range);
  };
  const Range place{bitmap.table_offset, std::uint64_t{bitmap.table_size} * 8};
  if (!take(place.widened(unit))) {
    return std::unexpected(bitmap_fault(
        bitmap, fmt::format("the table at {:#x} overlaps other metadata", place.offset)));
  }
  for (std::size_t i = 0; i < table.size(); ++i) {
    const BitmapTableEntry entry = parse_bitmap_table_entry(table[i], geometry());
    const Range bits{entry.offset, unit};
    if (entry.kind == BitmapTableEntry::Kind::wrong) {
      return std::unexpected(bitmap_fault(
          bitmap, fmt::format("entry {} of the table is {:#x}, which can't be", i, table[i])));
    }
    if (entry.kind != BitmapTableEntry::Kind::stored) continue;
    if (!bits.lies_within(edges_.file->size())) {
      return std::unexpected(
          bitmap_fault(bitmap, fmt::format("the bits at {:#x} leave the file of {} bytes",
                                           bits.offset, edges_.file->size())));
    }
    if (!take(bits)) {
      return std::unexpected(bitmap_fault(
          bitmap, fmt::format("the bits at {:#x} overlap other metadata", bits.offset)));
    }
  }
  return clusters;
}

// As a bitmap of the node, if it is one that can be used.
Task<> Image::show_bitmap(const Bitmap& entry, const std::vector<std::uint64_t>& table) {
  if (!entry.is_usable()) {
    home_->log.warning(health_.node() + ": qcow2: bitmap '" + printable(entry.name) +
                       "' is of a kind that is not known here, and stays as it is");
    co_return ok;
  }
  graph::BitmapTraits traits;
  traits.enabled = entry.is_automatic();
  traits.persistent = true;
  traits.inconsistent = entry.is_in_use();
  traits.read_only = options_.read_only || header_.is(incompatible::corrupt);
  auto bitmap =
      std::make_unique<graph::DirtyBitmap>(entry.name, entry.granularity(), size(), traits);
  if (!entry.is_in_use()) CO_CHECK(co_await load_bits(*bitmap, table));
  node_.bitmaps().add(std::move(bitmap));
  co_return ok;
}

Task<> Image::load_bits(graph::DirtyBitmap& bitmap, const std::vector<std::uint64_t>& table) {
  using Kind = BitmapTableEntry::Kind;
  const std::uint64_t unit = geometry().cluster_size();
  std::vector<std::byte> bits(unit);
  const Buffers list{std::span(bits)};
  for (std::size_t i = 0; i < table.size(); ++i) {
    const std::uint64_t first = i * unit * 8;
    if (first >= bitmap.granules()) break;
    const BitmapTableEntry entry = parse_bitmap_table_entry(table[i], geometry());
    if (entry.kind == Kind::ones) {
      bitmap.mark({first * bitmap.granularity(), unit * 8 * bitmap.granularity()});
    } else if (entry.kind == Kind::stored) {
      CO_CHECK(co_await edges_.file->read(entry.offset, list));
      bitmap.load(first, bits);
    }
  }
  co_return ok;
}

// Before the disk changes for the first time. Flags are all that changes, so the directory may be
// written where it is; torn, it has some of them.
Task<> Image::mark_bitmaps_in_use() {
  std::vector<StoredBitmap> marked = stored_bitmaps_;
  bool changed = false;
  for (StoredBitmap& each : marked) {
    // one that is not known here is out of step from now on if it should record
    if (each.entry.is_in_use() || !(each.entry.is_usable() || each.entry.is_automatic())) continue;
    each.entry.flags |= bitmap_flag::in_use;
    changed = true;
  }
  if (!changed) co_return ok;
  const std::vector<Bitmap> entries = entries_of(marked);
  CO_TRY(const std::vector<std::byte> directory, format_bitmap_directory(entries));
  const ConstBuffers list{std::span(directory)};
  CO_CHECK(co_await edges_.file->write(bitmap_directory_.offset, list));
  CO_CHECK(co_await edges_.file->flush());
  stored_bitmaps_ = std::move(marked);
  co_return ok;
}

// An extension that was left by who knows no bitmaps: they have missed changes. Where the header
// has no room to be put together again it stays, and is believed by nobody.
Task<> Image::drop_stale_bitmaps() {
  if (header_.version < 3 || !header_.bitmaps || believes_bitmaps()) co_return ok;
  const auto stale = std::exchange(header_.bitmaps, std::nullopt);
  Result<> done = co_await rewrite_header();
  if (done) co_return ok;
  header_.bitmaps = stale;
  if (done.error().code == Errc::no_space) co_return ok;
  co_return done;
}

// Is there anything to be stored that the image does not have?
Task<bool> Image::bitmaps_changed() {
  if (options_.read_only || health_.failed() || header_.is(incompatible::corrupt)) co_return false;
  for (const auto& bitmap : node_.bitmaps().all()) {
    if (!is_kept(*bitmap)) continue;
    const auto stored = std::ranges::find(stored_bitmaps_, bitmap->name(),
                                          [](const StoredBitmap& each) { return each.entry.name; });
    if (stored == stored_bitmaps_.end()) co_return true;
    CO_TRY(const bool same, co_await is_as_stored(*bitmap, stored->entry));
    if (!same) co_return true;
  }
  co_return false;
}

Task<bool> Image::is_as_stored(const graph::DirtyBitmap& bitmap, const Bitmap& entry) {
  using Kind = BitmapTableEntry::Kind;
  if (bitmap.enabled() != entry.is_automatic()) co_return false;
  CO_TRY(const auto table, co_await read_bitmap_table(entry));
  const std::uint64_t unit = geometry().cluster_size();
  std::vector<std::byte> there(unit);
  std::vector<std::byte> here(unit);
  const Buffers list{std::span(there)};
  for (std::size_t i = 0; i < table.size() && i * unit * 8 < bitmap.granules(); ++i) {
    const Part part = part_of(bitmap, i, unit);
    const BitmapTableEntry told = parse_bitmap_table_entry(table[i], geometry());
    if (told.kind != Kind::stored) {
      if (part.kind != told.kind) co_return false;
      continue;
    }
    CO_CHECK(co_await edges_.file->read(told.offset, list));
    bitmap.store(part.first, here);
    if (there != here) co_return false;
  }
  co_return true;
}

Task<> Image::store_bitmaps() {
  std::vector<StoredBitmap> next;
  std::vector<Range> old;
  std::vector<Range> fresh;
  Result<> done = ok;
  const auto keep = [&](StoredBitmap stored) {
    fresh.insert(fresh.end(), stored.clusters.begin(), stored.clusters.end());
    next.push_back(std::move(stored));
  };
  for (const StoredBitmap& each : stored_bitmaps_) {
    const graph::DirtyBitmap* bitmap =
        each.entry.is_usable() ? node_.bitmaps().find(each.entry.name) : nullptr;
    if (bitmap == nullptr || !is_kept(*bitmap)) {
      next.push_back(each);
      continue;
    }
    auto stored = co_await store_bitmap(*bitmap, each.entry);
    if (!stored) {
      done = std::unexpected(std::move(stored).error());
      break;
    }
    keep(*std::move(stored));
    old.insert(old.end(), each.clusters.begin(), each.clusters.end());
  }
  for (const auto& bitmap : node_.bitmaps().all()) {
    if (!done) break;
    const bool is_new = std::ranges::none_of(
        next, [&](const StoredBitmap& each) { return each.entry.name == bitmap->name(); });
    if (!is_kept(*bitmap) || !is_new) continue;
    Bitmap entry;
    entry.name = bitmap->name();
    entry.granularity_bits = static_cast<std::uint8_t>(std::countr_zero(bitmap->granularity()));
    auto stored = co_await store_bitmap(*bitmap, std::move(entry));
    if (stored) {
      keep(*std::move(stored));
    } else {
      done = std::unexpected(std::move(stored).error());
    }
  }
  if (fresh.empty() && done) co_return ok;
  if (!done) {
    for (const Range& each : fresh) co_await take_back(each);
    co_return done;
  }
  CO_CHECK(co_await publish_bitmaps(std::move(next)));
  for (const Range& each : old) free_metadata(each);
  co_return ok;
}

// The bitmap at a place of its own, that nothing leads to yet. A failure leaves nothing behind.
Task<StoredBitmap> Image::store_bitmap(const graph::DirtyBitmap& bitmap, Bitmap entry) {
  StoredBitmap stored;
  stored.entry = std::move(entry);
  stored.entry.flags &= ~(bitmap_flag::in_use | bitmap_flag::automatic);
  if (bitmap.enabled()) stored.entry.flags |= bitmap_flag::automatic;
  Result<> done = co_await put_bitmap(bitmap, stored);
  if (done) co_return std::move(stored);
  for (const Range& each : stored.clusters) co_await take_back(each);
  co_return std::unexpected(std::move(done).error());
}

Task<> Image::put_bitmap(const graph::DirtyBitmap& bitmap, StoredBitmap& stored) {
  const std::uint64_t unit = geometry().cluster_size();
  auto table_size = bitmap_table_size(bitmap.size(), bitmap.granularity(), geometry());
  if (!table_size) {
    co_return std::unexpected(health_.fault(Errc::no_space, reason(table_size.error())));
  }
  std::vector<Be<std::uint64_t>> table(*table_size);
  std::vector<std::size_t> mixed;
  for (std::size_t i = 0; i < table.size(); ++i) {
    const Part part = part_of(bitmap, i, unit);
    if (part.kind == BitmapTableEntry::Kind::ones) table[i] = bitmap_entry_ones;
    if (part.kind == BitmapTableEntry::Kind::stored) mixed.push_back(i);
  }
  std::vector<std::byte> bits;
  for (std::size_t at = 0; at < mixed.size();) {
    const std::uint64_t most = std::max<std::uint64_t>(piece_bytes / unit, 1);
    CO_TRY(const HostRun run,
           co_await refcounts_.allocate(std::min<std::uint64_t>(most, mixed.size() - at)));
    const Range place{run.offset, run.length};
    stored.clusters.push_back(place);
    metadata_.add(place);
    bits.resize(run.length);
    for (std::uint64_t done = 0; done < run.length; done += unit, ++at) {
      bitmap.store(mixed[at] * unit * 8, std::span(bits).subspan(done, unit));
      table[mixed[at]] = run.offset + done;
    }
    const ConstBuffers list{std::span<const std::byte>(bits)};
    CO_CHECK(co_await edges_.file->write(run.offset, list));
  }
  CO_TRY(const HostRun run,
         co_await refcounts_.allocate_table(geometry().clusters(table.size() * 8)));
  const Range place{run.offset, run.length};
  stored.clusters.push_back(place);
  metadata_.add(place);
  // whole clusters, so that none of them ends behind the end of the file
  table.resize(run.length / 8);
  const ConstBuffers list(std::as_bytes(std::span(table)));
  CO_CHECK(co_await edges_.file->write(run.offset, list));
  stored.entry.table_offset = run.offset;
  stored.entry.table_size = *table_size;
  co_return ok;
}

// Clusters that nothing on the medium has ever led to.
asio::awaitable<void> Image::take_back(Range clusters) {
  metadata_.remove(clusters);
  HostRun run;
  run.offset = clusters.offset;
  run.length = clusters.length;
  co_await refcounts_.release(run);
}

void Image::free_metadata(Range clusters) {
  metadata_.remove(clusters);
  free_later(clusters.widened(geometry().cluster_size()), FreedBy::other);
}

// The directory at a new place, and the header tells of it, or of none.
// Requires: nothing is in flight.
Task<> Image::publish_bitmaps(std::vector<StoredBitmap> bitmaps) {
  Range place;
  if (!bitmaps.empty()) {
    const std::vector<Bitmap> entries = entries_of(bitmaps);
    CO_TRY(const std::vector<std::byte> directory, format_bitmap_directory(entries));
    CO_TRY(const HostRun run,
           co_await refcounts_.allocate_table(geometry().clusters(directory.size())));
    place = {run.offset, directory.size()};
    const ConstBuffers list{std::span(directory)};
    Result<> done = co_await edges_.file->write(run.offset, list);
    if (!done) {
      co_await refcounts_.release(run);
      co_return done;
    }
  }
  refcounts_.freeze();
  CO_CHECK(co_await write_refcounts());
  CO_CHECK(co_await edges_.file->flush());
  const Header before = header_;
  header_.bitmaps.reset();
  header_.autoclear_features &= ~autoclear::bitmaps;
  if (!bitmaps.empty()) {
    header_.autoclear_features |= autoclear::bitmaps;
    header_.bitmaps.emplace();
    header_.bitmaps->count = static_cast<std::uint32_t>(bitmaps.size());
    header_.bitmaps->directory_offset = place.offset;
    header_.bitmaps->directory_size = place.length;
  }
  Result<> done = co_await rewrite_header();
  if (!done && done.error().code == Errc::no_space && bitmaps.empty()) {
    // no room to put the header together again: an extension whose bit is not set is none
    header_.bitmaps = before.bitmaps;
    done = co_await write_header();
    if (done) done = co_await edges_.file->flush();
  }
  if (!done) {  // nobody knows which directory the header tells of: both stay
    header_ = before;
    co_return done;
  }
  const Range old = std::exchange(bitmap_directory_, place);
  metadata_.add(place);
  if (!old.empty()) free_metadata(old);
  stored_bitmaps_ = std::move(bitmaps);
  co_return ok;
}

Result<> Image::check_new_bitmap(const std::string& name, std::uint64_t granularity) const {
  const auto refuse = [&](Errc code, std::string_view why) {
    return std::unexpected(health_.fault(
        code, fmt::format("bitmap '{}' can't be stored in the image: {}", printable(name), why)));
  };
  if (node_.bitmaps().find(name) != nullptr) return ok;  // whoever asks knows better words for that
  if (header_.version < 3) return refuse(Errc::not_supported, "it has version 2");
  if (options_.read_only || header_.is(incompatible::corrupt)) {
    return refuse(Errc::permission_denied, "it is read-only");
  }
  if (size() == 0) return refuse(Errc::invalid_argument, "its disk has no bytes");
  const auto fits = bitmap_table_size(size(), granularity, geometry());
  if (!fits) return refuse(Errc::invalid_argument, reason(fits.error()));
  std::vector<Bitmap> entries = entries_of(stored_bitmaps_);
  const auto is_there = [&](const std::string& wanted) {
    return std::ranges::find(entries, wanted, &Bitmap::name) != entries.end();
  };
  if (is_there(name)) return refuse(Errc::invalid_argument, "the name is taken");
  const auto add = [&](const std::string& added) {
    Bitmap entry;
    entry.name = added;
    entries.push_back(std::move(entry));
  };
  for (const auto& bitmap : node_.bitmaps().all()) {
    if (bitmap->persistent() && !is_there(bitmap->name())) add(bitmap->name());
  }
  add(name);
  const auto directory = format_bitmap_directory(entries);
  if (!directory) return refuse(Errc::no_space, reason(directory.error()));
  Header told = header_;
  told.bitmaps.emplace();
  const auto room = format_header(told);
  if (!room) return refuse(Errc::no_space, reason(room.error()));
  return ok;
}

// Errors: invalid_argument when the bitmaps can't follow the disk to another size.
Result<> Image::check_bitmaps_fit(std::uint64_t new_size) const {
  const auto refuse = [&](const std::string& name, std::string_view why) {
    return std::unexpected(health_.fault(
        Errc::invalid_argument, fmt::format("the disk can't become {} bytes long: bitmap '{}' {}",
                                            new_size, printable(name), why)));
  };
  for (const StoredBitmap& each : stored_bitmaps_) {
    if (!each.entry.is_usable()) {
      return refuse(each.entry.name, "is of a kind that is not known here");
    }
  }
  for (const auto& bitmap : node_.bitmaps().all()) {
    if (!bitmap->persistent()) continue;
    if (bitmap->inconsistent()) return refuse(bitmap->name(), "is inconsistent: remove it");
    if (new_size == 0) return refuse(bitmap->name(), "would have no bits");
    const auto fits = bitmap_table_size(new_size, bitmap->granularity(), geometry());
    if (!fits) return refuse(bitmap->name(), "would have too many bits");
  }
  return ok;
}

Task<> Image::forget_bitmap(std::string name) {
  const auto alone = co_await go_alone();
  if (health_.failed()) co_return std::unexpected(health_.failure_found());
  const auto is_it = [&](const StoredBitmap& each) {
    return each.entry.is_usable() && each.entry.name == name;
  };
  if (std::ranges::none_of(stored_bitmaps_, is_it)) co_return ok;
  // what was merged into others must not be forgotten by a crash
  CO_CHECK(co_await begin_writing());
  CO_CHECK(co_await settle());
  std::vector<StoredBitmap> left = stored_bitmaps_;
  const auto found = std::ranges::find_if(left, is_it);
  if (found == left.end()) co_return ok;
  const StoredBitmap gone = std::move(*found);
  left.erase(found);
  CO_CHECK(co_await publish_bitmaps(std::move(left)));
  for (const Range& each : gone.clusters) free_metadata(each);
  co_return co_await settle();
}

}  // namespace formats::qcow2
