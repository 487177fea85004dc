#include "nbd/ticket.h"

#include <asio/post.hpp>
#include <cassert>
#include <utility>

namespace nbd {
namespace {

void give_back(Places& places, const std::string& origin) {
  assert(places.taken > 0);
  --places.taken;
  const auto found = places.by_origin.find(origin);
  if (--found->second == 0) places.by_origin.erase(found);
  places.given_back.notify_all();
}

}  // namespace

Ticket::Ticket(std::shared_ptr<Places> places, std::string origin, asio::any_io_executor home)
    : places_(std::move(places)), origin_(std::move(origin)), home_(std::move(home)) {
  ++places_->taken;
  ++places_->by_origin[origin_];
}

void Ticket::attach() {
  attached_ = true;
  ++places_->attached;
}

void Ticket::give_up() {
  assert(!attached_);
  if (const auto places = std::exchange(places_, nullptr)) give_back(*places, origin_);
}

Ticket::~Ticket() {
  if (!places_) return;
  asio::post(home_, [places = std::move(places_), origin = std::move(origin_), attached = attached_,
                     then = std::move(then_)] {
    give_back(*places, origin);
    if (attached) --places->attached;
    if (then) then();
  });
}

}  // namespace nbd
