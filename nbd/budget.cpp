#include "nbd/budget.h"

namespace nbd {

asio::awaitable<Budget::Share> Budget::take(std::size_t bytes, const bool& given_up) {
  while (!has_room_for(bytes) && !given_up) co_await changed_.wait();
  if (given_up) co_return Share();
  const std::size_t wanted = borrowed_with(bytes);
  if (wanted > 0) {
    const bool taken = co_await memory_->take(wanted, given_up);
    if (!taken) co_return Share();
  }
  // requests that have ended meanwhile made room that is the connection's own
  const std::size_t needed = borrowed_with(bytes);
  if (needed < wanted) memory_->give(wanted - needed);
  co_return enter(bytes);
}

}  // namespace nbd
