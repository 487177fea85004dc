#include "formats/qcow2/image.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace formats::qcow2 {
namespace {

EntryRules rules_of(const Header& header) {
  EntryRules rules;
  rules.geometry = header.geometry;
  rules.zero_flag = header.version >= 3;
  rules.external_data = header.has_data_file();
  return rules;
}

// As much as all L2 tables of the disk are, if that is less.
std::size_t l2_cache_bytes(const Header& header, const ImageOptions& options) {
  const std::uint64_t all = header.geometry.l1_entries(header.size) << header.geometry.cluster_bits;
  return static_cast<std::size_t>(std::min<std::uint64_t>(options.l2_cache, all));
}

}  // namespace

Image::Image(graph::Node& node, std::string name, Home& home, ImageEdges edges, Header header,
             std::vector<std::byte> first_sector, ImageOptions options)
    : node_(node),
      home_(&home),
      edges_(edges),
      header_(std::move(header)),
      first_sector_(std::move(first_sector)),
      options_(options),
      health_(std::move(name), home.log),
      rules_(rules_of(header_)),
      metadata_(header_.geometry.cluster_bits),
      refcounts_(*edges.file, header_.geometry, health_, metadata_, options.refcount_cache),
      l2_cache_(*edges.file, std::min<std::size_t>(header_.cluster_size(), options.l2_slice),
                l2_cache_bytes(header_, options), graph::DebugEvent::l2_load,
                graph::DebugEvent::l2_update),
      cleaner_(options.clean_interval, [this] { return clean_caches(); }),
      active_(l2_cache_, health_, rules_),
      compressed_(header_.cluster_size()) {
  enter_worker(home);
  l2_cache_.when_filled([this] { cleaner_.wake(*home_); });
  refcounts_.blocks().when_filled([this] { cleaner_.wake(*home_); });
  if (options.lazy_refcounts && header_.version >= 3) {
    header_.compatible_features &= ~compatible::lazy_refcounts;
    if (*options.lazy_refcounts) header_.compatible_features |= compatible::lazy_refcounts;
  }
}

Image::~Image() = default;

bool Image::clean_caches() {
  const bool more = l2_cache_.forget_unused();
  return refcounts_.blocks().forget_unused() || more;
}

asio::awaitable<void> Image::close() {
  co_await cleaner_.end();
  co_await background_.drained();
}

void Image::leave_worker() {
  helpers_.reset();
  cleaner_.stop();
}

void Image::enter_worker(Home& home) {
  home_ = &home;
  helpers_.emplace(home.helpers.shares());
  if (cached_bytes() > 0) cleaner_.wake(home);
}

Task<> Image::open() {
  CO_CHECK(co_await refcounts_.open(header_));
  CO_TRY(L1Table l1,
         co_await read_l1(*edges_.file, health_, header_.l1_table_offset, header_.l1_size));
  active_.set_table(std::move(l1));
  claim_tables();
  CO_CHECK(co_await load_snapshots());
  if (header_.luks) metadata_.add({header_.luks->offset, header_.luks->length});
  co_return co_await load_bitmaps();
}

// What there is once only, and may lie nowhere else. An image where it does can be read, as far as
// it says something; nobody may write to it.
void Image::claim_table(Range range, std::string_view what) {
  if (metadata_.add(range)) return;
  (void)health_.corrupt(
      fmt::format("{} at {:#x} lies where other metadata is", what, range.offset));
}

void Image::claim_tables() {
  const std::uint64_t unit = geometry().cluster_size();
  claim_table({0, unit}, "the header");
  claim_table({header_.l1_table_offset, std::uint64_t{header_.l1_size} * 8}, "the L1 table");
  claim_table({refcounts_.table_offset(), refcounts_.table_clusters() << geometry().cluster_bits},
              "the refcount table");
  for (const std::uint64_t block : refcounts_.table()) {
    if (block == 0 || block >= edges_.file->size()) continue;
    claim_table({align_down(block, 512), unit}, "a refcount block");
  }
  const MetadataMap single = metadata_;
  for (std::uint64_t i = 0; i < active_.entries(); ++i) {
    const std::uint64_t table = active_.entry(i) & offset_mask;
    if (table == 0) continue;
    if (single.hits({align_down(table, 512), unit})) {
      (void)health_.corrupt(
          fmt::format("an L2 table at {:#x} lies where other metadata is", table));
    }
    guard_table(table);
  }
}

// H-19: what lies behind the end of the file is no table, and takes no memory.
void Image::guard_table(std::uint64_t host) {
  if (host >= edges_.file->size()) return;
  metadata_.add({align_down(host, 512), geometry().cluster_size()});
}

Mapping Image::mapping_of(L1Table l1) { return {l2_cache_, health_, rules_, std::move(l1)}; }

// H-9
Result<> Image::check_writable() const {
  if (header_.is(incompatible::corrupt)) {
    return std::unexpected(health_.fault(
        Errc::permission_denied,
        "the image is marked corrupt and may only be read; see gantry check --repair all"));
  }
  if (health_.found_any()) {
    Error error = health_.failure_found();
    error.code = Errc::permission_denied;
    error.message += "; it may only be read, see gantry check";
    return std::unexpected(std::move(error));
  }
  return ok;
}

Task<> Image::write_header() {
  patch_header(first_sector_, header_);
  const ConstBuffers list{std::span<const std::byte>(first_sector_)};
  co_return co_await edges_.file->write(0, list);
}

// What an image says of itself before it is changed for the first time (H-8).
Task<> Image::first_write() {
  while (first_write_runs_) co_await first_write_ended_.wait();
  if (writing_) co_return ok;
  first_write_runs_ = true;
  Result<> done = ok;
  const std::uint64_t unknown = header_.autoclear_features & ~autoclear::known;
  if (unknown != 0) {
    header_.autoclear_features &= ~unknown;
    done = co_await write_header();
    if (done) done = co_await edges_.file->flush();
    if (!done) header_.autoclear_features |= unknown;
  }
  if (done) done = co_await drop_stale_bitmaps();
  if (done) done = co_await mark_bitmaps_in_use();
  writing_ = done.has_value();
  first_write_runs_ = false;
  first_write_ended_.notify_all();
  co_return done;
}

// Best effort: whatever it says, the node fails from now on.
Task<> Image::mark_corrupt() {
  health_.set_marked();
  if (header_.version < 3 || header_.is(incompatible::corrupt)) co_return ok;
  header_.incompatible_features |= incompatible::corrupt;
  CO_CHECK(co_await write_header());
  co_return co_await edges_.file->flush();
}

Task<> Image::tell(Task<> work) {
  Result<> done = co_await std::move(work);
  if (!done && health_.wants_marking()) (void)co_await mark_corrupt();
  co_return done;
}

// Durable with the next flush of the file.
Task<> Image::say_dirty() {
  if (header_.is(incompatible::dirty)) co_return ok;
  header_.incompatible_features |= incompatible::dirty;
  Result<> done = co_await write_header();
  if (!done) header_.incompatible_features &= ~incompatible::dirty;  // so that it is tried again
  co_return done;
}

// All counts are on the medium, and the image no longer says that they may be wrong.
Task<> Image::say_clean() {
  refcounts_.freeze();
  CO_CHECK(co_await write_refcounts());
  CO_CHECK(co_await edges_.file->flush());
  if (!header_.is(incompatible::dirty)) co_return ok;
  header_.incompatible_features &= ~incompatible::dirty;
  CO_CHECK(co_await write_header());
  co_return co_await edges_.file->flush();
}

// Each round makes room for what the one before set free.
Task<> Image::finish_writing() {
  if (!writing_) {
    CO_TRY(const bool changed, co_await bitmaps_changed());
    if (!changed) co_return ok;
    CO_CHECK(co_await begin_writing());
  }
  if (flags_stale_) CO_CHECK(co_await set_copied_flags());
  CO_CHECK(co_await settle());
  // without them the image is as good as after a crash
  Result<> stored = co_await store_bitmaps();
  if (stored) stored = co_await settle();
  if (refcounts_.dirty()) CO_CHECK(co_await node_.flushes().flush(node_, graph::FlushDepth::disk));
  if (header_.is(incompatible::dirty)) CO_CHECK(co_await say_clean());
  writing_ = false;
  co_return stored;
}

}  // namespace formats::qcow2
