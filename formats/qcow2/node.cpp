// node.cpp - the driver: opens an image with what it names and what the options say instead, and
// hands every request to the Image.
// Spec: qcow2.rst; docs/qcow2.md has the rules and how this room is built.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <filesystem>
#include <utility>

#include "formats/formats.h"
#include "formats/qcow2/check.h"
#include "formats/qcow2/image.h"
#include "formats/qcow2/medium.h"
#include "graph/driver.h"

namespace formats {
namespace {

using graph::Edge;
using graph::Extents;
using graph::Role;
using qcow2::Header;
using qcow2::Image;

constexpr unsigned layers_max = 200;  // of a chain that images name

constexpr std::array qcow2_options{
    OptionSpec{"file", Kind::node, "", "the node with the image"},
    OptionSpec{"backing", Kind::node, "",
               "the layer below instead of the one that the image names; \"\" is none"},
    OptionSpec{"data-file", Kind::node, "",
               "the external data file instead of the one that the image names"},
    OptionSpec{"lazy-refcounts", Kind::boolean, "",
               "counts are written at the end, and a flag says so; default: as the image says"},
    OptionSpec{"pass-discard-request", Kind::boolean, "",
               "a client's discards reach the file; default: unless discard is \"ignore\""},
    OptionSpec{"pass-discard-snapshot", Kind::boolean, "true",
               "space of deleted snapshots is given back"},
    OptionSpec{"pass-discard-other", Kind::boolean, "false", "space freed otherwise is given back"},
    OptionSpec{"discard-no-unref", Kind::boolean, "false",
               "a discarded cluster keeps its place in the file"},
    OptionSpec{"overlap-check", Kind::choice, "cached",
               "metadata is guarded against being overwritten; always all of it",
               "none|constant|cached|all"},
    OptionSpec{"cache-size", Kind::bytes, "", "l2-cache-size and refcount-cache-size together"},
    OptionSpec{"l2-cache-size", Kind::bytes, "32M", "memory for L2 tables, at most"},
    OptionSpec{"l2-cache-entry-size", Kind::bytes, "4K",
               "how much of an L2 table is read at a time: a power of two, at most a cluster"},
    OptionSpec{"refcount-cache-size", Kind::bytes, "1M", "memory for refcount blocks, at most"},
    OptionSpec{"cache-clean-interval", Kind::duration, "600s",
               "tables that nobody used for so long are forgotten; 0s: never"},
};

// A snapshot, as a node over that of the image.
class SnapshotPort final : public graph::Format, public qcow2::SnapshotUser {
 public:
  SnapshotPort(Edge image_edge, Image& image, const qcow2::Snapshot& snapshot, qcow2::L1Table l1)
      : edge_(std::move(image_edge)),
        image_(image),
        id_(snapshot.id),
        name_(snapshot.name),
        size_(image.size_of(snapshot)),
        mapping_(image.mapping_of(std::move(l1))) {
    own(edge_);
    image_.add_user(*this);
  }
  ~SnapshotPort() override { image_.remove_user(*this); }

  std::uint64_t own_size() const override { return size_; }
  graph::Growth growth() const override { return graph::Growth::never; }
  Task<> read(std::uint64_t offset, const Buffers& out) override {
    return image_.read_of(mapping_, offset, out);
  }
  Task<Extents> map(Range range, graph::MapDepth) override {
    return image_.map_of(mapping_, range);
  }
  Task<> read_opaque(std::uint64_t offset, const Buffers& out) override {
    return image_.read_of(mapping_, offset, out);
  }
  graph::Limits own_limits() const override {
    graph::Limits limits;
    limits.memory_alignment = Format::own_limits().memory_alignment;
    return limits;
  }
  std::string detail() const override { return "snapshot '" + printable(name_) + "'"; }

  const std::string& snapshot_id() const override { return id_; }
  std::string describe_users() const override {
    std::string users;
    for (const Edge* edge : parents()) {
      if (edge->parent() == nullptr) continue;
      if (!users.empty()) users += ", ";
      users += edge->parent()->describe();
    }
    return users.empty() ? "somebody who is about to look at it" : users;
  }

 private:
  Edge edge_;
  Image& image_;
  const std::string id_;
  const std::string name_;
  const std::uint64_t size_;
  qcow2::Mapping mapping_;
};

class Qcow2 final : public graph::Format {
 public:
  Qcow2(Edge file, Edge data, Edge backing)
      : file_(std::move(file)), data_(std::move(data)), backing_(std::move(backing)) {
    own(file_);
    if (data_) own(data_);
    if (backing_) own(backing_);
  }

  Task<> open(std::string name, Home& home, Header header, std::vector<std::byte> first_sector,
              qcow2::ImageOptions options) {
    qcow2::ImageEdges edges;
    edges.file = &file_;
    edges.data = data_ ? &data_ : &file_;
    edges.backing = backing_ ? &backing_ : nullptr;
    image_.emplace(*this, std::move(name), home, edges, std::move(header), std::move(first_sector),
                   options);
    return image_->open();
  }

  std::uint64_t own_size() const override { return image_->size(); }
  graph::Growth growth() const override { return graph::Growth::never; }

  Task<> read(std::uint64_t offset, const Buffers& out) override {
    return image_->read(offset, out);
  }
  Task<> write(std::uint64_t offset, const ConstBuffers& data, graph::WriteFlags flags) override {
    return image_->write(offset, data, flags);
  }
  Task<> write_zeroes(Range range, graph::ZeroFlags flags) override {
    return image_->write_zeroes(range, flags);
  }
  Task<> discard(Range range) override { return image_->discard(range); }
  Task<Extents> map(Range range, graph::MapDepth) override { return image_->map(range); }
  Task<> read_opaque(std::uint64_t offset, const Buffers& out) override {
    return image_->read(offset, out);
  }
  Task<> resize(std::uint64_t size) override { return image_->resize(size); }
  Task<> flush_to_children() override { return image_->flush_to_children(); }
  void flush_done() override { image_->flush_done(); }

  bool has_snapshots() const override { return true; }
  std::vector<graph::Port> ports() const override {
    std::vector<graph::Port> ports;
    for (const qcow2::Snapshot& each : image_->snapshots()) {
      ports.push_back(qcow2::port_of(each, image_->size_of(each)));
    }
    return ports;
  }
  Task<std::unique_ptr<graph::Node>> open_port(std::string wanted, Edge self) override {
    const qcow2::Snapshot* found = image_->find_snapshot(wanted);
    if (found == nullptr) co_return std::unexpected(image_->no_snapshot(wanted));
    const qcow2::Snapshot snapshot = *found;
    CO_TRY(qcow2::L1Table l1, co_await image_->l1_of(snapshot));
    if (image_->find_snapshot(snapshot.id) == nullptr) {  // deleted meanwhile
      co_return std::unexpected(image_->no_snapshot(wanted));
    }
    co_return std::make_unique<SnapshotPort>(std::move(self), *image_, snapshot, std::move(l1));
  }
  Task<graph::Port> take_snapshot(std::string name) override {
    return image_->take_snapshot(std::move(name));
  }
  Task<graph::Port> delete_snapshot(std::string wanted) override {
    return image_->delete_snapshot(std::move(wanted));
  }
  Task<> apply_snapshot(std::string wanted) override {
    return image_->apply_snapshot(std::move(wanted));
  }

  Task<> check_persistent_bitmap(const std::string& bitmap, std::uint64_t granularity) override {
    Result<> checked = image_->check_new_bitmap(bitmap, granularity);
    return checked ? succeeded() : failed(std::move(checked).error());
  }
  Task<> forget_persistent_bitmap(const std::string& bitmap) override {
    return image_->forget_bitmap(bitmap);
  }
  // As in QEMU.
  std::uint64_t bitmap_granularity() const override {
    return std::clamp<std::uint64_t>(image_->geometry().cluster_size(), 4 * KiB, 64 * KiB);
  }

  graph::Limits own_limits() const override {
    graph::Limits limits;
    const graph::Limits below = Format::own_limits();
    limits.memory_alignment = below.memory_alignment;
    limits.discard_alignment = static_cast<std::uint32_t>(image_->header().cluster_size());
    limits.preferred = static_cast<std::uint32_t>(
        std::max<std::uint64_t>(4096, image_->geometry().subcluster_size()));
    limits.native_fua = limits.native_zeroes = true;
    return limits;
  }

  Result<> prepare_access(graph::Access own) override {
    if (!own.taken.has_any(graph::Permission::write | graph::Permission::write_unchanged)) {
      return ok;
    }
    return image_->check_writable();
  }
  void commit_access() override { image_->set_writable(!common().read_only); }
  void leave_worker() override { image_->leave_worker(); }
  void enter_worker() override { image_->enter_worker(home()); }
  Task<> close() override {
    Result<> done = co_await image_->finish_writing();
    co_await image_->close();
    co_return done;
  }
  std::string detail() const override {
    return fmt::format("{} clusters", format_bytes(image_->header().cluster_size()));
  }

 private:
  Edge file_;
  Edge data_;
  Edge backing_;
  std::optional<Image> image_;
};

// What was read of a file before anything is believed.
struct Start {
  Header header;
  std::vector<std::byte> first_sector;
};

std::unexpected<Error> named(const graph::OpenContext& context, Error error) {
  error.node = context.node_name();
  error.message = context.node_name() + ": " + error.message;
  return std::unexpected(std::move(error));
}

Task<Start> read_start(graph::OpenContext& context, Edge& file) {
  const std::uint64_t size = file.size();
  std::vector<std::byte> bytes(std::min<std::uint64_t>(size, 512));
  const Buffers head{std::span(bytes)};
  CO_CHECK(co_await file.read(0, head));
  const auto cluster_size = qcow2::claimed_cluster_size(bytes);
  if (!cluster_size) co_return named(context, cluster_size.error());
  bytes.resize(std::min(size, *cluster_size));
  const Buffers whole{std::span(bytes)};
  CO_CHECK(co_await file.read(0, whole));
  Start start;
  auto header = qcow2::parse_header(bytes, size);
  if (!header) co_return named(context, std::move(header).error());
  start.header = std::move(*header);
  bytes.resize(512);
  start.first_sector = std::move(bytes);
  co_return std::move(start);
}

// H-10: an image whose counts may be wrong is repaired before anybody writes to it.
Task<> repair(graph::OpenContext& context, Edge& file) {
  using graph::Permission;
  const graph::Access alone{Permission::consistent_read | Permission::write | Permission::resize,
                            Permission::consistent_read};
  CO_CHECK(co_await context.take(file, alone));
  const std::string who = context.node_name() + ": qcow2: ";
  Log& log = context.home().log;
  log.info(who + "the image was not closed; its reference counts are made anew");
  qcow2::MediumOf<Edge> medium(file);
  qcow2::CheckOptions options;
  options.repair = qcow2::Repair::all;
  options.found = [&log, &who](const std::string& line) { log.debug(who + line); };
  Result<qcow2::CheckReport> report = co_await qcow2::check(medium, options);
  if (!report) co_return named(context, std::move(report).error());
  if (report->is_clean()) co_return ok;
  co_return named(
      context,
      Error(Errc::corrupt, fmt::format("qcow2: the image was not closed and can't be repaired: "
                                       "{} corruptions and {} leaked clusters are left; see "
                                       "gantry check",
                                       report->corruptions, report->leaks)));
}

Options description(const std::string& driver) {
  Options options;
  OptionValue name;
  name.data = driver;
  options.set("driver", std::move(name));
  return options;
}

// B-6: what an image names is a file, whatever it looks like; relative to the image's own folder.
Options file_description(const Edge& image, const std::string& name) {
  const std::filesystem::path beside = std::filesystem::path(image.node().filename()).parent_path();
  Options options = description("file");
  OptionValue path;
  path.data = (beside / name).string();
  options.set("filename", std::move(path));
  return options;
}

Task<Edge> attach_named_backing(graph::OpenContext& context, const Edge& file,
                                const Header& header) {
  if (context.common().layers_above + 1 >= layers_max) {  // B-7
    co_return named(context, Error(Errc::invalid_argument,
                                   fmt::format("qcow2: backing file '{}' is layer {} of its chain: "
                                               "a loop, most likely",
                                               printable(header.backing_file), layers_max)));
  }
  if (!header.backing_format) {  // B-5
    co_return named(
        context,
        Error(
            Errc::invalid_argument,
            fmt::format("qcow2: the image names backing file '{}' and not its format, which is "
                        "never guessed: add backing = {{ driver = ..., file = ... }}, or store it "
                        "with qemu-img rebase -u -F",
                        printable(header.backing_file))));
  }
  Options file_options = file_description(file, header.backing_file);
  if (*header.backing_format == "file") {
    co_return co_await context.attach_described("backing", Role::backing, file_options);
  }
  Options layer = description(*header.backing_format);
  OptionValue below;
  below.data = std::make_shared<Options>(std::move(file_options));
  layer.set("file", std::move(below));
  Result<Edge> edge = co_await context.attach_described("backing", Role::backing, layer);
  if (edge) co_return edge;
  Error error = std::move(edge).error();
  error.message = fmt::format("{}: qcow2: backing file '{}': {}", context.node_name(),
                              printable(header.backing_file), error.message);
  co_return std::unexpected(std::move(error));
}

Task<Edge> attach_backing(graph::OpenContext& context, const Edge& file, const Header& header) {
  const OptionValue* given = context.options().options().find("backing");
  if (given == nullptr) {
    if (header.backing_file.empty()) co_return Edge();
    co_return co_await attach_named_backing(context, file, header);
  }
  if (given->text() != nullptr && given->text()->empty()) co_return Edge();
  co_return co_await context.attach("backing", Role::backing);
}

// H-18
Task<Edge> attach_data_file(graph::OpenContext& context, const Edge& file, const Header& header) {
  if (!header.has_data_file()) {
    if (context.options().has("data-file")) {
      co_return context.blame(
          "data-file",
          Error(Errc::invalid_argument,
                context.node_name() + ": qcow2: the image has no external data file, so none can "
                                      "be given"));
    }
    co_return Edge();
  }
  if (context.options().has("data-file")) {
    co_return co_await context.attach("data-file", Role::data);
  }
  if (!header.data_file) {
    co_return named(context, Error(Errc::invalid_argument,
                                   "qcow2: the image has an external data file and does not name "
                                   "it: add data-file = { driver = \"file\", filename = ... }"));
  }
  const Options described = file_description(file, *header.data_file);
  co_return co_await context.attach_described("data-file", Role::data, described);
}

qcow2::ImageOptions image_options(const graph::OpenContext& context) {
  const OptionReader& options = context.options();
  const auto discards = [&](std::string_view key, bool fallback) {
    const bool passed = options.has(key) ? options.boolean(key) : fallback;
    return passed ? qcow2::Discards::pass : qcow2::Discards::keep;
  };
  qcow2::ImageOptions image;
  image.read_only = context.common().read_only;
  image.pass_request =
      discards("pass-discard-request", context.common().discard == graph::DiscardMode::unmap);
  image.pass_snapshot = discards("pass-discard-snapshot", true);
  image.pass_other = discards("pass-discard-other", false);
  image.discard_no_unref = options.has("discard-no-unref") && options.boolean("discard-no-unref");
  if (options.has("lazy-refcounts")) image.lazy_refcounts = options.boolean("lazy-refcounts");
  image.l2_cache = options.bytes("l2-cache-size");
  image.refcount_cache = options.bytes("refcount-cache-size");
  image.l2_slice = options.bytes("l2-cache-entry-size");
  image.clean_interval = std::chrono::nanoseconds(options.duration_ns("cache-clean-interval"));
  if (options.has("cache-size") && !options.has("l2-cache-size")) {
    const std::uint64_t all = options.bytes("cache-size");
    image.l2_cache = all - std::min<std::uint64_t>(image.refcount_cache, all / 4);
    image.refcount_cache = std::min<std::uint64_t>(image.refcount_cache, all / 4);
  }
  return image;
}

Result<> check_slice_size(const graph::OpenContext& context, const Header& header) {
  constexpr std::string_view key = "l2-cache-entry-size";
  if (!context.options().has(key)) return ok;
  const std::uint64_t size = context.options().bytes(key);
  if (std::has_single_bit(size) && size >= 512 && size <= header.cluster_size()) return ok;
  return context.blame(
      key, Error(Errc::invalid_argument,
                 fmt::format("{}: qcow2: {} bytes of an L2 table at a time: it must be a power of "
                             "two between 512 and the cluster size, {}",
                             context.node_name(), size, header.cluster_size())));
}

Task<std::unique_ptr<graph::Node>> open_qcow2(graph::OpenContext& context) {
  CO_TRY(Edge file, co_await context.attach("file", Role::image));
  CO_TRY(Start start, co_await read_start(context, file));
  if (start.header.encryption != qcow2::Encryption::none) {
    co_return named(context, Error(Errc::not_supported,
                                   "qcow2: the image is encrypted, which is not known here"));
  }
  const bool dirty = start.header.is(qcow2::incompatible::dirty);
  if (dirty && !context.common().read_only && !start.header.is(qcow2::incompatible::corrupt)) {
    CO_CHECK(co_await repair(context, file));
    CO_TRY(start, co_await read_start(context, file));
  }
  CO_TRY(Edge data, co_await attach_data_file(context, file, start.header));
  CO_TRY(Edge backing, co_await attach_backing(context, file, start.header));
  if (data) {
    CO_TRY(Edge metadata, co_await context.hold("file", Role::metadata, file.shared_node()));
    file = std::move(metadata);
  }
  CO_CHECK(check_slice_size(context, start.header));
  auto node = std::make_unique<Qcow2>(std::move(file), std::move(data), std::move(backing));
  CO_CHECK(co_await node->open(context.node_name(), context.home(), std::move(start.header),
                               std::move(start.first_sector), image_options(context)));
  co_return std::move(node);
}

}  // namespace

extern const graph::Driver qcow2_driver{
    "qcow2", "QEMU's image format: sparse, with backing files and snapshots", qcow2_options,
    open_qcow2};

}  // namespace formats
