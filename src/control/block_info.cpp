#include "src/control/block_info.h"

#include <array>
#include <ranges>

#include "src/snapshot_text.h"

namespace app::control {
namespace {

std::string_view name_of(graph::DetectZeroes detect) {
  switch (detect) {
    case graph::DetectZeroes::on:
      return "on";
    case graph::DetectZeroes::unmap:
      return "unmap";
    case graph::DetectZeroes::off:
      break;
  }
  return "off";
}

// What has no file has the description of its node instead.
std::string filename_of(const graph::Node& node) {
  if (std::string filename = node.filename(); !filename.empty()) return filename;
  Json description;
  description.set("driver", node.driver().name);
  description.set("size", node.size());
  return "json:" + to_text(description);
}

const graph::Edge* backing_of(const graph::Node& node) {
  for (const graph::Edge* edge : node.children()) {
    if (edge->role() == graph::Role::backing) return edge;
  }
  return nullptr;
}

std::int64_t backing_depth(const graph::Node& node) {
  const graph::Edge* below = backing_of(node);
  return below == nullptr ? 0 : 1 + backing_depth(below->node());
}

Task<Json> describe_image(std::shared_ptr<graph::Node> node, Backing backing) {
  Json image;
  image.set("virtual-size", node->size());
  image.set("filename", filename_of(*node));
  image.set("format", node->driver().name);
  const Result<std::uint64_t> allocated = co_await node->allocated_size();
  if (allocated) image.set("actual-size", *allocated);
  if (!node->filename().empty()) image.set("dirty-flag", false);
  JsonArray snapshots;
  for (const graph::Port& port : node->ports()) snapshots.push_back(snapshot_json(port));
  if (!snapshots.empty()) image.set("snapshots", std::move(snapshots));
  const graph::Edge* edge = backing_of(*node);
  if (edge == nullptr) co_return std::move(image);
  const std::shared_ptr<graph::Node> below = edge->shared_node();
  image.set("full-backing-filename", filename_of(*below));
  image.set("backing-filename", filename_of(*below));
  if (backing == Backing::nested) {
    CO_TRY(Json nested, co_await describe_image(below, backing));
    image.set("backing-image", std::move(nested));
  }
  co_return std::move(image);
}

Json describe_cache(const graph::Node& node) {
  Json cache;
  cache.set("no-flush", node.common().no_flush);
  cache.set("direct", node.common().direct);
  cache.set("writeback", true);
  return cache;
}

Json describe_bitmap(const graph::DirtyBitmap& bitmap) {
  Json info;
  info.set("name", bitmap.name());
  info.set("recording", bitmap.enabled() && !bitmap.inconsistent());
  info.set("persistent", bitmap.persistent());
  info.set("busy", bitmap.busy());
  info.set("granularity", bitmap.granularity());
  info.set("count", bitmap.dirty_bytes());
  if (bitmap.inconsistent()) info.set("inconsistent", true);
  return info;
}

// The newest first, as QEMU has them.
JsonArray describe_bitmaps(const graph::Node& node) {
  JsonArray bitmaps;
  for (const auto& bitmap : node.bitmaps().all() | std::views::reverse) {
    bitmaps.push_back(describe_bitmap(*bitmap));
  }
  return bitmaps;
}

// There is no throttling here yet that could have other limits than none.
void add_limits(Json& info) {
  for (const char* limit : {"iops", "iops_rd", "iops_wr", "bps", "bps_rd", "bps_wr"}) {
    info.set(limit, 0);
  }
}

Task<Json> describe_node(std::shared_ptr<graph::Node> node, Backing backing) {
  CO_TRY(Json image, co_await describe_image(node, backing));
  Json info;
  info.set("node-name", node->name());
  info.set("drv", node->driver().name);
  info.set("ro", node->common().read_only);
  info.set("file", filename_of(*node));
  info.set("image", std::move(image));
  info.set("cache", describe_cache(*node));
  info.set("detect_zeroes", name_of(node->common().detect_zeroes));
  // as QEMU counts: only the layers that it describes
  info.set("backing_file_depth", backing == Backing::nested ? backing_depth(*node) : 0);
  if (const graph::Edge* below = backing_of(*node)) {
    info.set("backing_file", filename_of(below->node()));
  }
  info.set("encrypted", false);
  info.set("write_threshold", 0);
  add_limits(info);
  if (!node->bitmaps().all().empty()) info.set("dirty-bitmaps", describe_bitmaps(*node));
  co_return std::move(info);
}

}  // namespace

Task<JsonArray> describe_nodes(Cell& cell, Backing backing) {
  std::vector<std::shared_ptr<graph::Node>> nodes;
  for (const graph::Node* node : cell.graph().nodes()) {
    nodes.push_back(cell.graph().find(node->name()));
  }
  JsonArray all;
  for (const auto& node : nodes) {
    CO_TRY(Json info, co_await describe_node(node, backing));
    all.push_back(std::move(info));
  }
  co_return std::move(all);
}

}  // namespace app::control
