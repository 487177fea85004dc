#include "src/map_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <optional>

#include "graph/base/json.h"
#include "src/one_image.h"

namespace app {
namespace {

using graph::Extent;
using graph::ExtentKind;

struct Place {
  std::string file;
  std::uint64_t offset = 0;  // bytes of the file
  bool operator==(const Place&) const = default;
};

// What qemu-img calls a map entry.
struct Entry {
  Range range;         // of the image, in bytes
  unsigned depth = 0;  // of the layer that answers, from the top
  bool present = false;
  bool zero = false;
  bool data = false;
  bool compressed = false;
  std::optional<Place> place;

  // `next`, right behind, goes on as this one does.
  bool is_continued_by(const Entry& next) const {
    if (depth != next.depth || present != next.present || zero != next.zero || data != next.data ||
        compressed != next.compressed || place.has_value() != next.place.has_value()) {
      return false;
    }
    if (!place) return true;
    return next.place->file == place->file && next.place->offset == place->offset + range.length;
  }
};

// Writes entries as they come: a large image has millions.
class Printer {
 public:
  explicit Printer(bool json) : json_(json) {
    if (!json_) print(fmt::format("{:<16}{:<16}{:<16}File\n", "Offset", "Length", "Mapped to"));
    if (json_) print("[");
  }
  void add(Entry entry) {
    if (last_ && last_->is_continued_by(entry)) {
      last_->range.length += entry.range.length;
      return;
    }
    put_last();
    last_ = std::move(entry);
  }
  void end() {
    put_last();
    if (json_) print("]\n");
  }

 private:
  static void print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }
  void put_last() {
    if (!last_) return;
    if (json_) {
      print((first_ ? "" : ",\n") + to_text(json_of(*last_)));
      first_ = false;
    } else if (last_->data && !last_->zero) {
      print(line_of(*last_));
    }
  }
  static Json json_of(const Entry& entry) {
    Json json{JsonObject()};
    json.set("start", entry.range.offset);
    json.set("length", entry.range.length);
    json.set("depth", entry.depth);
    json.set("present", entry.present);
    json.set("zero", entry.zero);
    json.set("data", entry.data);
    json.set("compressed", entry.compressed);
    if (entry.place) json.set("offset", entry.place->offset);
    return json;
  }
  static std::string line_of(const Entry& entry) {
    const auto hex = [](std::uint64_t value) {
      return value == 0 ? std::string("0") : fmt::format("{:#x}", value);
    };
    return fmt::format("{:<16}{:<16}{:<16}{}\n", hex(entry.range.offset), hex(entry.range.length),
                       entry.place ? hex(entry.place->offset) : "compressed",
                       entry.place ? printable(entry.place->file) : "");
  }

  const bool json_;
  bool first_ = true;
  std::optional<Entry> last_;
};

// Goes down from layer to layer. All of them have a byte of the image at the same offset.
class Walk {
 public:
  explicit Walk(Printer& printer) : printer_(printer) {}

  Task<> through(graph::Node& layer, Range range, unsigned depth) {
    while (!range.empty()) {
      CO_TRY(const graph::Extents extents, co_await layer.map(range, graph::MapDepth::zeroes));
      for (const Extent& extent : extents.list) {
        const Range here{range.offset, std::min(extent.length, range.length)};
        CO_CHECK(co_await through_extent(layer, extent, here, depth));
        range = {here.end(), range.length - here.length};
      }
    }
    co_return ok;
  }

 private:
  Task<> through_extent(graph::Node& layer, const Extent& extent, Range here, unsigned depth) {
    Entry entry;
    entry.range = here;
    entry.depth = depth;
    entry.present = extent.allocated;
    switch (extent.kind) {
      case ExtentKind::below:
        return extent.via == nullptr ? nothing(here, depth) : below(*extent.via, here, depth);
      case ExtentKind::opaque:
        entry.present = entry.data = entry.compressed = true;
        break;
      case ExtentKind::zero:
        entry.zero = true;
        if (extent.provisioned || lies_as_it_is(layer)) entry.place = place_of(layer, extent);
        break;
      case ExtentKind::data:
        entry.data = true;
        entry.place = place_of(layer, extent);
        if (!extent.settled && extent.via != nullptr) return stored(*extent.via, entry);
        break;
    }
    printer_.add(std::move(entry));
    return succeeded();
  }

  // No layer has these bytes: the deepest one that could have had them answers.
  Task<> nothing(Range here, unsigned depth) {
    Entry entry;
    entry.range = here;
    entry.depth = depth;
    entry.zero = true;
    printer_.add(std::move(entry));
    return succeeded();
  }

  // A layer may be shorter than the one above it.
  Task<> below(graph::Edge& edge, Range here, unsigned depth) {
    const std::uint64_t end = std::clamp(edge.size(), here.offset, here.end());
    CO_CHECK(co_await through(edge.node(), {here.offset, end - here.offset}, depth + 1));
    if (end < here.end()) CO_CHECK(co_await nothing({end, here.end() - end}, depth));
    co_return ok;
  }

  // Stored data may be holes of its file, in parts, or lie behind its end.
  Task<> stored(graph::Edge& file, Entry entry) {
    Range rest = entry.range;
    std::uint64_t at = entry.place->offset;
    while (!rest.empty()) {
      Entry part = entry;
      part.range = rest;
      part.place->offset = at;
      if (at >= file.size()) {
        part.zero = true;
      } else {
        const Range there{at, std::min(rest.length, file.size() - at)};
        CO_TRY(const graph::StatusExtents status,
               co_await graph::block_status(file, there, graph::MapDepth::zeroes, 1));
        part.zero = status.front().zero;
        part.range.length = status.front().length;
      }
      at += part.range.length;
      rest = {part.range.end(), rest.length - part.range.length};
      printer_.add(std::move(part));
    }
    co_return ok;
  }

  // The image's bytes are those of its file.
  static bool lies_as_it_is(const graph::Node& layer) {
    return layer.children().empty() || layer.passes_bytes_on();
  }
  static Place place_of(const graph::Node& layer, const Extent& extent) {
    return {extent.via != nullptr ? extent.via->node().filename() : layer.filename(),
            extent.offset};
  }

  Printer& printer_;
};

}  // namespace

Task<int> map_image(Worker& worker, const MapCommand& command, Drivers drivers) {
  OneImage image(worker.home(), drivers);
  CO_CHECK(co_await image.open(command.image, command.format, Layers::all, FileUse::read));
  Printer printer(command.json);
  Walk walk(printer);
  graph::Node& top = image.view().node();
  const Result<> done = co_await walk.through(top, {0, top.size()}, 0);
  if (done) printer.end();
  const Result<> closed = co_await image.close();
  if (!done) co_return std::unexpected(done.error());
  if (!closed) co_return std::unexpected(closed.error());
  co_return EXIT_SUCCESS;
}

}  // namespace app
