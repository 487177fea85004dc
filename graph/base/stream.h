// stream.h - a byte stream to one peer, whatever carries it. Conversations are written over this;
// only src/ and the simulation know what is beneath.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "graph/base/buffer.h"
#include "graph/base/task.h"

class Stream {
 public:
  virtual ~Stream() = default;

  // Bytes that are there at once, at most out.size(); 0 when there are none (ask `readable`).
  // Errors: connection_lost at the end of the stream and when the peer is gone.
  virtual Result<std::size_t> read_now(std::span<std::byte> out) = 0;
  // Suspends until read_now has something to say. One caller at a time.
  // Errors: connection_lost, canceled after close().
  virtual Task<> readable() = 0;

  // Sends what can be sent at once and returns how much; 0 when the peer must read first (ask
  // `writable`). Errors: connection_lost.
  virtual Result<std::size_t> write_now(const ConstBuffers& data) = 0;
  virtual Task<> writable() = 0;

  // Ends the stream for both sides; whoever waits on it is woken with an error. May be called
  // twice.
  virtual void close() = 0;
  // Who is at the other end, for the log.
  virtual std::string peer() const = 0;
  // Whom to count together: the host or user at the other end. Local: on this machine.
  virtual std::string origin() const { return ""; }
  virtual bool is_local() const { return true; }

  // To another event loop: release() where it lives, then assign() where it goes; nothing else in
  // between but destruction. Requires: nobody waits on it.
  // Errors: what the event loop says when it can't watch it; then it is closed.
  virtual void release() {}
  virtual Result<> assign(const asio::any_io_executor&) { return ok; }
};

// Reads exactly out.size() bytes.
// Errors: connection_lost, also when the stream ends in between.
Task<> read_exactly(Stream& stream, std::span<std::byte> out);
// Sends everything.
Task<> write_all(Stream& stream, const ConstBuffers& data);
