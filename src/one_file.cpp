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

graph::ViewOptions view_options(FileUse use) {
  graph::ViewOptions view("this command");
  if (use == FileUse::change) view.policy = graph::RangePolicy::growable;
  view.access = access_for(use);
  return view;
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

Task<> OneView::attach(const Options& top, FileUse use) {
  CO_TRY(std::shared_ptr<graph::Node> node, co_await graph_.add("image", top));
  CO_TRY(view_, co_await graph_.attach(std::move(node), view_options(use)));
  co_return ok;
}

Task<> OneView::open(const Options& top, FileUse use) {
  Result<> done = co_await attach(top, use);
  if (!done) (void)co_await graph_.close();
  co_return done;
}

Task<> OneView::close() {
  Result<> flushed = ok;
  if (view_->writable()) flushed = co_await view_->flush();
  const Result<> detached = co_await graph_.detach(std::move(view_));
  const Result<> closed = co_await graph_.close();
  if (!flushed) co_return flushed;
  co_return detached ? closed : detached;
}

Task<> OneFile::open(const std::string& filename, FileUse use) {
  const Options options = file_options(filename, use);
  CO_CHECK(co_await view_.open(options, use));
  medium_ = std::make_unique<formats::qcow2::MediumOf<graph::BlockBackend>>(*view_);
  co_return ok;
}

Task<> OneFile::close() {
  medium_.reset();
  co_return co_await view_.close();
}

}  // namespace app
