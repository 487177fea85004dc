// raw.cpp - the bytes of the child as they are, or a window of them. Transparent for growth without
// `size`; with `offset` and `size`, too, it takes and shares only what its own parents do
// (Role::window).
#include <array>

#include "formats/formats.h"
#include "graph/driver.h"

namespace formats {
namespace {

using graph::Edge;
using graph::Extents;

constexpr std::array raw_options{
    OptionSpec{"file", Kind::node, "", "the node with the bytes"},
    OptionSpec{"offset", Kind::bytes, "0", "first byte shown"},
    OptionSpec{"size", Kind::bytes, "rest", "bytes shown; then the node never grows"},
};

class Raw final : public graph::Node {
 public:
  Raw(Edge file, std::uint64_t offset, std::optional<std::uint64_t> length)
      : file_(std::move(file)), offset_(offset), length_(length) {
    own(file_);
  }

  std::uint64_t own_size() const override {
    if (length_) return *length_;
    return file_.size() > offset_ ? file_.size() - offset_ : 0;
  }
  graph::Growth growth() const override {
    return length_ ? graph::Growth::never : graph::Growth::as_child;
  }
  bool passes_bytes_on() const override { return true; }
  std::string detail() const override {
    if (offset_ == 0 && !length_) return "";
    return format_bytes(offset_) + " +" + (length_ ? format_bytes(*length_) : "");
  }

  Task<> read(std::uint64_t offset, const Buffers& out) override {
    if (file_.is_watched()) [[unlikely]]
      return seen_from_here(watched_read(offset_ + offset, out));
    return seen_from_here(file_.read(offset_ + offset, out));
  }
  Task<> write(std::uint64_t offset, const ConstBuffers& data, graph::WriteFlags flags) override {
    if (leaves({offset, data.size()})) [[unlikely]]
      return full(offset);
    if (file_.is_watched()) [[unlikely]]
      return seen_from_here(watched_write(offset_ + offset, data, flags));
    return seen_from_here(file_.write(offset_ + offset, data, flags));
  }
  Task<> write_zeroes(Range range, graph::ZeroFlags flags) override {
    if (leaves(range)) [[unlikely]]
      return full(range.offset);
    return seen_from_here(file_.write_zeroes(range.shifted(offset_), flags));
  }
  Task<> discard(Range range) override {
    return seen_from_here(file_.discard(range.shifted(offset_)));
  }
  Task<> resize(std::uint64_t size) override {
    if (length_) {
      return failed(fault(Errc::not_supported, 0, "raw: a window of fixed size can't be resized"));
    }
    if (!checked_add(offset_, size)) {
      return failed(fault(Errc::invalid_argument, 0, "raw: the size is too large"));
    }
    return file_.resize(offset_ + size);
  }
  Task<> prefetch(Range range) override { return file_.prefetch(range.shifted(offset_)); }
  Task<Extents> map(Range range, graph::MapDepth depth) override {
    return file_.map(range.shifted(offset_), depth);
  }
  Result<> check_child_resize(const Edge&, std::uint64_t child_size) const override {
    if (!length_) {
      return graph::check_resize(*this, child_size > offset_ ? child_size - offset_ : 0);
    }
    if (child_size >= offset_ + *length_) return ok;
    return failure(Errc::busy, "node '" + name() + "' shows node '" + file_.node().name() +
                                   "' up to byte " + std::to_string(offset_ + *length_) +
                                   ", it can't become " + std::to_string(child_size) +
                                   " bytes long");
  }

 private:
  // Offsets of these are bytes of the child.
  Task<> watched_read(std::uint64_t offset, const Buffers& out) {
    co_await file_.event(graph::DebugEvent::read_aio);
    co_return co_await file_.read(offset, out);
  }
  Task<> watched_write(std::uint64_t offset, const ConstBuffers& data, graph::WriteFlags flags) {
    co_await file_.event(graph::DebugEvent::write_aio);
    co_return co_await file_.write(offset, data, flags);
  }
  // An error of the child, in bytes of this node.
  Task<> seen_from_here(Task<> task) const {
    return offset_ == 0 ? std::move(task) : shifted_back(std::move(task));
  }
  Task<> shifted_back(Task<> task) const {
    Result<> done = co_await std::move(task);
    if (done) co_return done;
    const std::uint64_t at = done.error().offset;
    co_return std::unexpected(std::move(done).error().at(at > offset_ ? at - offset_ : 0));
  }
  // Past the end of a window, even where the edge above may grow what it writes to.
  bool leaves(Range range) const { return length_ && !range.lies_within(*length_); }
  Task<> full(std::uint64_t offset) const {
    return failed(fault(Errc::no_space, offset, "raw: the window is full"));
  }
  Edge file_;
  const std::uint64_t offset_;  // bytes of the child
  const std::optional<std::uint64_t> length_;
};

// Errors: invalid_argument when the window leaves the child.
Task<std::unique_ptr<graph::Node>> open_raw(graph::OpenContext& context) {
  CO_TRY(Edge file, co_await context.attach("file", graph::Role::window));
  const std::uint64_t offset = context.options().bytes("offset");
  std::optional<std::uint64_t> length;
  if (context.options().has("size")) length = context.options().bytes("size");
  if (!Range{offset, length.value_or(0)}.lies_within(file.size())) {
    co_return context.blame(
        length ? "size" : "offset",
        Error(Errc::invalid_argument,
              context.node_name() + ": raw: the window of " + std::to_string(length.value_or(0)) +
                  " bytes at " + std::to_string(offset) + " leaves node '" + file.node().name() +
                  "' of " + std::to_string(file.size()) + " bytes"));
  }
  co_return std::make_unique<Raw>(std::move(file), offset, length);
}

}  // namespace

extern const graph::Driver raw_driver{
    "raw", "the bytes of another node as they are, or a window of them", raw_options, open_raw};

}  // namespace formats
