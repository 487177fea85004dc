#include "src/one_file.h"

#include <filesystem>

namespace app {
namespace {

using graph::Permission;

graph::Access access_for(FileUse use) {
  const graph::Permissions read = Permission::consistent_read;
  switch (use) {
    case FileUse::look:
      return {read, graph::Permissions::all()};
    case FileUse::read:
      return {read, read};
    case FileUse::change:
      break;
  }
  return {read | Permission::write | Permission::resize, graph::Permissions::none()};
}

}  // namespace

Options file_options(const std::string& filename, FileUse use) {
  Options options;
  std::error_code unknown;  // then opening it says what is wrong
  const bool is_device = std::filesystem::is_block_file(filename, unknown);
  options.set("driver", OptionValue{std::string(is_device ? "host_device" : "file"), {}});
  options.set("filename", OptionValue{filename, {}});
  options.set("read-only", OptionValue{use != FileUse::change, {}});
  if (use == FileUse::look) options.set("force-share", OptionValue{true, {}});
  return options;
}

graph::ViewOptions view_options(FileUse use) {
  graph::ViewOptions view("this command");
  if (use == FileUse::change) view.policy = graph::RangePolicy::growable;
  view.access = access_for(use);
  return view;
}

Task<> OneFile::open(const std::string& filename, FileUse use) {
  const Options options = file_options(filename, use);
  auto node = co_await graph_.add("image", options);
  if (node) {
    auto attached = co_await graph_.attach(*node, view_options(use));
    if (attached) {
      view_ = *std::move(attached);
      medium_ = std::make_unique<formats::qcow2::MediumOf<graph::BlockBackend>>(*view_);
      co_return ok;
    }
    node = std::unexpected(std::move(attached).error());
  }
  (void)co_await graph_.close();
  co_return std::unexpected(std::move(node).error());
}

Task<> OneFile::close() {
  Result<> flushed = ok;
  if (view_->writable()) flushed = co_await view_->flush();
  medium_.reset();
  Result<> detached = co_await graph_.detach(std::move(view_));
  Result<> closed = co_await graph_.close();
  if (!flushed) co_return flushed;
  co_return detached ? closed : detached;
}

}  // namespace app
