#include "nbd/transmission.h"

#include <algorithm>
#include <string>
#include <utility>

#include "nbd/meta_context.h"

namespace nbd {
namespace {

constexpr std::size_t piece_max = 4 * MiB;        // of a read, in one chunk
constexpr std::uint64_t status_worth = 64 * KiB;  // reads from here on ask where the holes are
constexpr std::uint64_t hole_min = 4 * KiB;       // shorter holes are sent as data
constexpr std::uint64_t hole_min_small = 512;  // of a short read that turned out to be all zeroes
constexpr std::uint64_t zero_piece_max = 128 * MiB;  // others get a turn in between
constexpr std::size_t descriptors_max = 8192;        // in one answer; the client asks again
constexpr std::size_t status_copies = 3;      // of the list of extents, while it is being made
constexpr std::size_t scratch_max = 1 * MiB;  // of the layers beneath, for what has no payload
constexpr std::uint64_t sector = 512;
// Of an error: a longer text takes a buffer.
constexpr std::size_t text_in_head_max =
    std::tuple_size_v<decltype(Reply::head)> - sizeof(ChunkHeader) - sizeof(ErrorChunk);

// REQ_ONE wants one extent of whole sectors: out of so many there is one, be they as short as a
// byte (statement 165).
std::size_t extents_wanted(const Request& request) {
  return request.has(command_flag::req_one) ? 2 * sector : descriptors_max;
}

enum class Last : std::uint8_t { no, yes };  // chunk of the answer

// A request while it is carried out: the parts of an answer, and how each command is answered.
class Job {
 public:
  Job(Request request, Budget::Share share, const Session& session, Home& home, Outbox& outbox)
      : request_(std::move(request)),
        share_(std::move(share)),
        session_(session),
        view_(session.item->view()),
        home_(home),
        outbox_(outbox) {}

  // Reads as one chunk, or one simple reply: the way of most requests, so it is short.
  bool is_one_chunk() const {
    return request_.has(command_flag::df) || request_.range.length < status_worth;
  }
  void refuse(WireError error, std::string_view text) {
    if (session_.structured_replies) {
      Reply reply = chunk(Chunk::error, sizeof(ErrorChunk) + text.size(), chunk_flag_done);
      put_error(reply, error, text, {});
      post_last(std::move(reply));
      return;
    }
    SimpleReply head;
    head.error = error;
    head.cookie = request_.cookie;
    Reply reply;
    reply.put(head);
    post_last(std::move(reply));
  }

  graph::BlockBackend& view() { return view_; }
  Range range() const { return request_.range; }
  ConstBuffers payload() const { return {request_.payload.bytes()}; }
  graph::WriteFlags write_flags() const {
    graph::WriteFlags flags;
    flags.fua = request_.has(command_flag::fua);
    return flags;
  }

  // A structured answer without any data.
  void post_nothing() { post_last(chunk(Chunk::none, 0, chunk_flag_done)); }

  // The answer of every command without payload.
  void finish(Result<> done) {
    if (done) {
      succeed();
      return;
    }
    refuse(code_of(done.error()), to_string(done.error().code));
  }
  asio::awaitable<void> read_simple() {
    Reply reply;
    reply.body = PooledBuffer(home_.buffers, request_.range.length);
    reply.body_size = request_.range.length;
    const Buffers out(reply.body.bytes());
    // Statement 122: the head promises the data, so that is complete before the head is made.
    const Result<> done = co_await view_.read(request_.range.offset, out);
    if (!done) {
      refuse(code_of(done.error()), "");
      co_return;
    }
    SimpleReply head;
    head.error = WireError::none;
    head.cookie = request_.cookie;
    reply.put(head);
    post_last(std::move(reply));
  }

  // Holes as holes, data in chunks, one after the other as the socket takes them.
  asio::awaitable<void> read_in_chunks() {
    Range rest = request_.range;
    while (!rest.empty()) {
      if (rest.offset != request_.range.offset) co_await outbox_.room();
      if (outbox_.gone()) co_return;
      const std::uint64_t hole = co_await hole_at(rest);
      if (hole > 0) {
        rest = {rest.offset + hole, rest.length - hole};
        post_hole({rest.offset - hole, hole}, rest.empty() ? Last::yes : Last::no);
        continue;
      }
      Range data{rest.offset, data_length_};
      if (data.length > piece_max) {
        data.length = align_down(data.offset + piece_max, sector) - data.offset;
      }
      rest = {data.end(), rest.length - data.length};
      if (!co_await read_chunk(data, rest.empty() ? Last::yes : Last::no)) co_return;
    }
  }

  // False when the request has been answered with an error.
  asio::awaitable<bool> read_chunk(Range range, Last last) {
    Reply reply;
    reply.body = PooledBuffer(home_.buffers, range.length);
    const Buffers out(reply.body.bytes());
    const Result<> done = co_await view_.read(range.offset, out);
    if (done && range.length >= hole_min_small && !request_.has(command_flag::df) &&
        is_zero(reply.body.bytes())) {
      post_hole(range, last);
      co_return true;
    }
    const std::uint64_t bad =  // the first byte that could not be read
        done ? range.end() : std::clamp(done.error().offset, range.offset, range.end() - 1);
    reply.body_size = bad - range.offset;
    if (reply.body_size > 0) {
      put_chunk(reply, Chunk::offset_data, sizeof(std::uint64_t) + reply.body_size,
                done && last == Last::yes ? chunk_flag_done : 0);
      reply.put(Be<std::uint64_t>(range.offset));
      if (done && last == Last::yes) {
        post_last(std::move(reply));
      } else {
        outbox_.post(std::move(reply));
      }
    }
    if (done) co_return true;
    refuse_at(code_of(done.error()), to_string(done.error().code), bad);
    co_return false;
  }

  Task<> write_zeroes() {
    graph::ZeroFlags flags;
    flags.may_unmap = !request_.has(command_flag::no_hole);
    flags.no_fallback = request_.has(command_flag::fast_zero);
    const bool fua = request_.has(command_flag::fua);
    // In one piece when it must be fast: a refusal must come before anything is changed.
    const std::uint64_t max = flags.no_fallback ? request_.range.length : zero_piece_max;
    Range rest = request_.range;
    do {
      const Range piece{rest.offset, std::min(rest.length, max)};
      rest = {piece.end(), rest.length - piece.length};
      flags.fua = fua && rest.empty();
      CO_CHECK(co_await view_.write_zeroes(piece, flags));
      if (!rest.empty()) co_await yield();
    } while (!rest.empty() && !outbox_.gone());
    co_return ok;
  }

  asio::awaitable<void> block_status() {
    auto status = co_await view_.block_status(request_.range, graph::MapDepth::zeroes,
                                              extents_wanted(request_));
    graph::StatusExtents extents;
    if (status) {
      extents = in_sectors(*status);
      if (request_.has(command_flag::req_one)) extents.resize(1);
    } else {  // statement 168: "data" is always a safe answer
      outbox_.report(request_, status.error());
      graph::StatusExtent unknown;
      unknown.length = request_.range.length;
      extents.push_back(unknown);
    }
    const std::size_t size = extents.size() * sizeof(StatusDescriptor);
    Reply reply = chunk(Chunk::block_status, sizeof(std::uint32_t) + size, chunk_flag_done);
    reply.put(Be<std::uint32_t>(base_allocation_id));
    reply.body = PooledBuffer(home_.buffers, size);
    reply.body_size = size;
    std::byte* at = reply.body.bytes().data();
    for (const graph::StatusExtent& extent : extents) {
      StatusDescriptor descriptor;
      descriptor.length = static_cast<std::uint32_t>(extent.length);
      descriptor.flags = (extent.data ? 0 : state_hole) | (extent.zero ? state_zero : 0);
      std::memcpy(at, &descriptor, sizeof descriptor);
      at += sizeof descriptor;
    }
    post_last(std::move(reply));
  }

 private:
  void succeed() {
    SimpleReply head;  // also with structured replies: shorter, and allowed without payload
    head.error = WireError::none;
    head.cookie = request_.cookie;
    Reply reply;
    reply.put(head);
    post_last(std::move(reply));
  }
  WireError code_of(const Error& error) {
    if (error.code == Errc::io_error || error.code == Errc::corrupt ||
        error.code == Errc::no_space) {
      outbox_.report(request_, error);
    }
    return wire_error(error.code, request_);
  }

  // The length of the hole at the start of `range`, if it is one worth sending; else 0, and
  // data_length_ says how far the data goes.
  asio::awaitable<std::uint64_t> hole_at(Range range) {
    constexpr std::size_t extents_max = 32;
    data_length_ = range.length;
    const auto status = co_await view_.block_status(range, graph::MapDepth::zeroes, extents_max);
    if (!status) co_return 0;  // reading tells what is wrong
    std::uint64_t at = range.offset;
    for (const graph::StatusExtent& extent : *status) {
      const std::uint64_t end = at + extent.length;
      if (extent.zero && extent.length >= hole_min) {
        // Boundaries lie between sectors (statement 129).
        if (at == range.offset) {
          co_return (end == range.end() ? end : align_down(end, sector)) - range.offset;
        }
        data_length_ = std::min(align_up(at, sector), range.end()) - range.offset;
        co_return 0;
      }
      at = end;
    }
    if (at < range.end() && at - range.offset >= hole_min) {
      data_length_ = align_down(at, sector) - range.offset;
    }
    co_return 0;
  }

  void refuse_at(WireError error, std::string_view text, std::uint64_t offset) {
    const Be<std::uint64_t> where = offset;
    Reply reply = chunk(Chunk::error_offset, sizeof(ErrorChunk) + text.size() + sizeof where,
                        chunk_flag_done);
    put_error(reply, error, text, bytes_of(where));
    post_last(std::move(reply));
  }

  // Statement 165: boundaries on multiples of 512, the sector with two answers being data; merged
  // (164).
  graph::StatusExtents in_sectors(const graph::StatusExtents& list) const {
    graph::StatusExtents result;
    const auto append = [&](std::uint64_t length, bool data, bool zero) {
      if (length == 0) return;
      if (!result.empty() && result.back().data == data && result.back().zero == zero) {
        result.back().length += length;
        return;
      }
      graph::StatusExtent extent;
      extent.length = length;
      extent.data = data;
      extent.zero = zero;
      result.push_back(extent);
    };
    // The end of what is known; a part of a sector there is left for the client to ask again.
    std::uint64_t known = request_.range.offset;
    for (const auto& extent : list) known += extent.length;
    if (known < request_.range.end()) known = align_down(known, sector);

    std::uint64_t at = request_.range.offset;   // end of what `result` covers
    std::uint64_t end = request_.range.offset;  // end of the extent at hand
    for (const graph::StatusExtent& extent : list) {
      end = std::min(end + extent.length, known);
      if (end <= at) continue;
      const std::uint64_t whole = end == known ? end : std::max(at, align_down(end, sector));
      append(whole - at, extent.data, extent.zero);
      at = whole;
      if (end == at) continue;
      const std::uint64_t mixed = std::min(align_up(end, sector), known);
      append(mixed - at, true, false);
      at = mixed;
    }
    return result;
  }

  void put_chunk(Reply& reply, Chunk type, std::uint64_t length, std::uint16_t flags) const {
    ChunkHeader header;
    header.flags = flags;
    header.type = type;
    header.cookie = request_.cookie;
    header.length = static_cast<std::uint32_t>(length);
    reply.put(header);
  }
  Reply chunk(Chunk type, std::uint64_t length, std::uint16_t flags) const {
    Reply reply;
    put_chunk(reply, type, length, flags);
    return reply;
  }
  void put_error(Reply& reply, WireError error, std::string_view text,
                 std::span<const std::byte> behind) {
    ErrorChunk head;
    head.error = error;
    head.text_length = static_cast<std::uint16_t>(text.size());
    reply.put(head);
    if (behind.empty() && reply.put_text(text)) return;
    reply.body_size = text.size() + behind.size();
    reply.body = PooledBuffer(home_.buffers, reply.body_size);
    const Buffers body(reply.body.bytes());
    ConstBuffers content(bytes_of(text));
    content.add(behind);
    copy_bytes(body, content);
  }
  void post_hole(Range range, Last last) {
    Reply reply =
        chunk(Chunk::offset_hole, sizeof(HoleChunk), last == Last::yes ? chunk_flag_done : 0);
    HoleChunk hole;
    hole.offset = range.offset;
    hole.length = static_cast<std::uint32_t>(range.length);
    reply.put(hole);
    if (last == Last::yes) {
      post_last(std::move(reply));
    } else {
      outbox_.post(std::move(reply));
    }
  }
  void post_last(Reply reply) {
    reply.share = std::move(share_);
    outbox_.post(std::move(reply));
  }

  Request request_;
  Budget::Share share_;
  const Session& session_;
  graph::BlockBackend& view_;
  Home& home_;
  Outbox& outbox_;
  std::uint64_t data_length_ = 0;  // see hole_at
};

}  // namespace

std::size_t memory_of(const Request& request, const Session& session) {
  const Range range = request.range;
  if (range.empty()) return 0;
  const std::size_t length = BufferPool::rounded(range.length);
  // What is no multiple of the node's unit is copied once more on its way, with the rest of
  // its units.
  const std::uint32_t unit = session.item->view().edge().limits().request_alignment;
  const bool copied = !is_aligned(range.offset | range.length, unit);
  const auto with_copy = [&](std::uint64_t piece) {
    return BufferPool::rounded(piece) +
           (copied ? BufferPool::rounded(piece + std::uint64_t{2} * unit) : 0);
  };
  switch (request.command) {
    case Command::write:
      return with_copy(range.length);
    case Command::read:
      if (session.structured_replies && !request.has(command_flag::df)) {
        return with_copy(std::min<std::uint64_t>(range.length, 2 * piece_max));
      }
      return with_copy(range.length);
    case Command::cache:
      return with_copy(std::min<std::uint64_t>(range.length, scratch_max));
    case Command::write_zeroes:
      return std::min<std::size_t>(length, scratch_max);
    case Command::block_status:
      return extents_wanted(request) *
             (sizeof(StatusDescriptor) + status_copies * sizeof(graph::StatusExtent));
    default:
      return 0;
  }
}

std::size_t memory_of(const Verdict& refusal, const Session& session) {
  if (!session.structured_replies || refusal.text.size() <= text_in_head_max) return 0;
  return BufferPool::rounded(refusal.text.size());
}

asio::awaitable<void> carry_out(Request request, Budget::Share share, const Session& session,
                                Home& home, Outbox& outbox) {
  const Command command = request.command;
  Job job(std::move(request), std::move(share), session, home, outbox);
  switch (command) {
    case Command::read:
      if (!session.structured_replies) {
        co_await job.read_simple();
      } else if (job.range().empty()) {
        job.post_nothing();
      } else if (job.is_one_chunk()) {
        (void)co_await job.read_chunk(job.range(), Last::yes);
      } else {
        co_await job.read_in_chunks();
      }
      break;
    case Command::write: {
      const ConstBuffers data = job.payload();
      job.finish(co_await job.view().write(job.range().offset, data, job.write_flags()));
      break;
    }
    case Command::flush:
      job.finish(co_await job.view().flush());
      break;
    case Command::trim:
      job.finish(co_await job.view().discard(job.range(), job.write_flags()));
      break;
    case Command::cache:
      job.finish(co_await job.view().prefetch(job.range()));
      break;
    case Command::write_zeroes:
      job.finish(co_await job.write_zeroes());
      break;
    case Command::block_status:
      co_await job.block_status();
      break;
    case Command::disconnect:
      break;
  }
}

void refuse(const Request& request, Budget::Share share, const Verdict& verdict,
            const Session& session, Home& home, Outbox& outbox) {
  Request answered;
  answered.command = request.command;
  answered.flags = request.flags;
  answered.cookie = request.cookie;
  answered.range = request.range;
  Job job(std::move(answered), std::move(share), session, home, outbox);
  job.refuse(verdict.error, verdict.text);
}

}  // namespace nbd
