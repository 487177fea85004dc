#include "formats/qcow2/mapping.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

namespace formats::qcow2 {

Task<L1Table> read_l1(graph::Edge& file, Health& health, std::uint64_t offset,
                      std::uint64_t count) {
  L1Table table;
  table.offset = offset;
  if (count == 0) co_return std::move(table);
  if (!Range{offset, count * 8}.lies_within(file.size())) {
    co_return std::unexpected(
        health.corrupt(fmt::format("L1 table of {} entries at {:#x} leaves the file of {} bytes",
                                   count, offset, file.size())));
  }
  std::vector<Be<std::uint64_t>> raw(count);
  const Buffers list(std::as_writable_bytes(std::span(raw)));
  CO_CHECK(co_await file.read(offset, list));
  table.entries.assign(raw.begin(), raw.end());
  co_return std::move(table);
}

void Mapping::set_entry(std::uint64_t index, std::uint64_t entry) {
  l1_.entries[index] = entry;
  dirty_.insert(index);
}

std::uint64_t Mapping::slice_coverage() const {
  return cache_.slice_size() / rules_.geometry.l2_entry_bytes() << rules_.geometry.cluster_bits;
}

std::uint64_t Mapping::slice_first(std::uint64_t guest) const {
  return align_down(guest, slice_coverage());
}

std::uint64_t Mapping::slice_host(std::uint64_t l2, std::uint64_t guest) const {
  return l2 + align_down(rules_.geometry.l2_index(guest) * rules_.geometry.l2_entry_bytes(),
                         cache_.slice_size());
}

Result<std::uint64_t> Mapping::l1_entry(std::uint64_t guest) const {
  const std::uint64_t index = rules_.geometry.l1_index(guest);
  if (index >= l1_.entries.size()) return 0;
  const std::uint64_t entry = l1_.entries[index];
  if ((entry & l1_reserved_mask) == 0 && rules_.geometry.is_cluster_aligned(entry & offset_mask))
      [[likely]] {
    return entry;
  }
  return std::unexpected(health_.corrupt(
      fmt::format("L1 entry {} is {:#x}, which is no place for an L2 table", index, entry), guest));
}

Run Mapping::hole(std::uint64_t guest, std::uint64_t length) const {
  const std::uint64_t coverage = rules_.geometry.l2_coverage();
  Run run;
  run.length = std::min(length, coverage - (guest & (coverage - 1)));
  return run;
}

Result<Run> Mapping::run_in(const TableCache::Slice& slice, std::uint64_t guest,
                            std::uint64_t length) {
  auto run = find_run(slice.bytes(), slice_first(guest), guest, length, rules_);
  if (run) [[likely]]
    return std::move(*run);
  return std::unexpected(health_.corrupt(run.error(), guest));
}

std::optional<Result<Run>> Mapping::run_now(std::uint64_t guest, std::uint64_t length) {
  const Result<std::uint64_t> entry = l1_entry(guest);
  if (!entry) return std::unexpected(entry.error());
  const std::uint64_t l2 = *entry & offset_mask;
  if (l2 == 0) return hole(guest, length);
  const TableCache::Slice* slice = cache_.find(slice_host(l2, guest));
  if (slice == nullptr) return std::nullopt;
  return run_in(*slice, guest, length);
}

Task<Run> Mapping::run(std::uint64_t guest, std::uint64_t length) {
  CO_TRY(const std::uint64_t entry, l1_entry(guest));
  const std::uint64_t l2 = entry & offset_mask;
  if (l2 == 0) co_return hole(guest, length);
  const std::uint64_t host = slice_host(l2, guest);
  CO_TRY(const TableCache::Ref slice, co_await cache_.get(host));
  co_return run_in(*slice, guest, length);
}

Task<TableCache::Ref> Mapping::slice(std::uint64_t guest) {
  CO_TRY(const std::uint64_t entry, l1_entry(guest));
  assert((entry & offset_mask) != 0);
  const std::uint64_t host = slice_host(entry & offset_mask, guest);
  co_return co_await cache_.get(host);
}

const TableCache::Slice* Mapping::slice_now(std::uint64_t guest) {
  const Result<std::uint64_t> entry = l1_entry(guest);
  if (!entry || (*entry & offset_mask) == 0) return nullptr;
  return cache_.find(slice_host(*entry & offset_mask, guest));
}

L2Entry Mapping::load(const TableCache::Slice& slice, std::uint64_t guest) const {
  const std::uint64_t index = (guest - slice_first(guest)) >> rules_.geometry.cluster_bits;
  return load_entry(slice.bytes(), rules_.geometry, index);
}

void Mapping::store(TableCache::Slice& slice, std::uint64_t guest, L2Entry entry) {
  const std::uint64_t index = (guest - slice_first(guest)) >> rules_.geometry.cluster_bits;
  store_entry(cache_.change(slice), rules_.geometry, index, entry);
}

void Mapping::freeze() {
  for (const std::uint64_t index : dirty_) frozen_[index] = l1_.entries[index];
  dirty_.clear();
}

// Each entry alone: a sector of L1 may hold entries that must not be believed yet.
Task<> Mapping::write_frozen(graph::Edge& file) {
  while (!frozen_.empty()) {
    const auto [index, value] = *frozen_.begin();
    if (file.is_watched()) co_await file.event(graph::DebugEvent::l1_update);
    const Be<std::uint64_t> entry = value;
    const ConstBuffers list(bytes_of(entry));
    CO_CHECK(co_await file.write(l1_.offset + index * 8, list));
    const auto written = frozen_.find(index);
    if (written != frozen_.end() && written->second == value) frozen_.erase(written);
  }
  co_return ok;
}

}  // namespace formats::qcow2
