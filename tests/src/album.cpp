// album.cpp - driver = "album": 1 MiB of nothing, which can be kept as snapshots.
#include <algorithm>

#include "graph/driver.h"
#include "tests/src/small_site.h"

namespace app {
namespace {

// A snapshot that somebody looks at.
class Page final : public Blank {
 public:
  Page(graph::Edge album, std::vector<std::string>& looked_at, std::string id)
      : album_(std::move(album)), looked_at_(looked_at), id_(std::move(id)) {
    own(album_);
    looked_at_.push_back(id_);
  }
  ~Page() override { std::erase(looked_at_, id_); }

 private:
  graph::Edge album_;
  std::vector<std::string>& looked_at_;
  const std::string id_;
};

class Album final : public Blank {
 public:
  bool has_snapshots() const override { return true; }
  std::vector<graph::Port> ports() const override { return ports_; }
  Task<std::unique_ptr<graph::Node>> open_port(std::string wanted, graph::Edge self) override {
    const graph::Port* port = graph::find_port(ports_, wanted);
    if (port == nullptr) co_return failure(Errc::invalid_argument, "there is no such snapshot");
    co_return std::make_unique<Page>(std::move(self), looked_at_, port->id);
  }
  Task<graph::Port> take_snapshot(std::string name) override {
    graph::Port port;
    port.id = std::to_string(++last_);
    port.name = std::move(name);
    port.size = own_size();
    ports_.push_back(port);
    co_return std::move(port);
  }
  Task<graph::Port> delete_snapshot(std::string wanted) override {
    const graph::Port port = *graph::find_port(ports_, wanted);
    if (std::ranges::find(looked_at_, port.id) != looked_at_.end()) {
      co_return failure(Errc::busy, "somebody looks at snapshot '" + port.name + "'");
    }
    std::erase_if(ports_, [&](const graph::Port& each) { return each.id == port.id; });
    co_return port;
  }

 private:
  std::vector<graph::Port> ports_;
  std::vector<std::string> looked_at_;
  unsigned last_ = 0;
};

Task<std::unique_ptr<graph::Node>> open_album(graph::OpenContext&) {
  co_return std::make_unique<Album>();
}

}  // namespace

extern const graph::Driver album_driver{"album", "has snapshots", {}, open_album};

}  // namespace app
