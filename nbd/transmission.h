// transmission.h - one request in, its replies out, once it was read and found good.
// Spec: proto.md, "Transmission", "Structured reply chunk message", "Request types".
#pragma once

#include "graph/base/home.h"
#include "nbd/reply_queue.h"
#include "nbd/request.h"

namespace nbd {

// Where replies go, and what is known about the peer meanwhile.
class Outbox {
 public:
  virtual ~Outbox() = default;
  virtual void post(Reply reply) = 0;
  // Replies that have not left yet are bounded: a long answer waits here between its chunks.
  virtual asio::awaitable<void> room() = 0;
  // The peer is gone: nobody wants the rest of the work.
  virtual bool gone() const = 0;
  // The medium failed, which is worth a line in the log.
  virtual void report(const Request& request, const Error& error) = 0;
};

// Bytes that a request can have in memory at once: what it reserves.
std::size_t memory_of(const Request& request, const Session& session);
// The same of an answer that refuses one.
std::size_t memory_of(const Verdict& refusal, const Session& session);

// Carries the request out and posts its replies; `share` leaves with the last one.
asio::awaitable<void> carry_out(Request request, Budget::Share share, const Session& session,
                                Home& home, Outbox& outbox);
// Answers without doing anything.
void refuse(const Request& request, Budget::Share share, const Verdict& verdict,
            const Session& session, Home& home, Outbox& outbox);

}  // namespace nbd
