// wire_client.h - a client that says whatever it is told to, right or wrong, and shows what it
// hears as values. It checks nothing. Its numbers are its own, not the server's: nbd/wire.h is
// under test, too. Spec: proto.md, "Values".
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/sim_stream.h"

namespace test {

// Numbers as they stand on the wire.
std::string be16(std::uint64_t n);
std::string be32(std::uint64_t n);
std::string be64(std::uint64_t n);
std::uint64_t number(std::string_view bytes);  // big-endian, of any length up to 8

namespace opt {
inline constexpr std::uint32_t export_name = 1, abort = 2, list = 3, peek = 4, starttls = 5,
                               info = 6, go = 7, structured_reply = 8, list_meta = 9, set_meta = 10,
                               extended_headers = 11;
}
namespace rep {
inline constexpr std::uint32_t ack = 1, server = 2, info = 3, meta_context = 4;
inline constexpr std::uint32_t err_unsup = 0x80000001, err_policy = 0x80000002,
                               err_invalid = 0x80000003, err_tls_reqd = 0x80000005,
                               err_unknown = 0x80000006, err_shutdown = 0x80000007,
                               err_block_size_reqd = 0x80000008, err_too_big = 0x80000009;
}  // namespace rep
namespace inf {
inline constexpr std::uint16_t size = 0, name = 1, description = 2, block_size = 3;
}
namespace tflag {
inline constexpr std::uint16_t has_flags = 1, read_only = 2, flush = 4, fua = 8, rotational = 16,
                               trim = 32, write_zeroes = 64, df = 128, multi_conn = 256,
                               resize = 512, cache = 1024, fast_zero = 2048,
                               block_status_payload = 4096;
}
namespace cmd {
inline constexpr std::uint16_t read = 0, write = 1, disc = 2, flush = 3, trim = 4, cache = 5,
                               write_zeroes = 6, block_status = 7, resize = 8;
}
namespace flag {
inline constexpr std::uint16_t fua = 1, no_hole = 2, df = 4, req_one = 8, fast_zero = 16,
                               payload_len = 32;
}
namespace chunk {
inline constexpr std::uint16_t none = 0, offset_data = 1, offset_hole = 2, block_status = 5,
                               error = 0x8001, error_offset = 0x8002;
}
namespace err {
inline constexpr std::uint32_t ok = 0, eperm = 1, eio = 5, enomem = 12, einval = 22, enospc = 28,
                               eoverflow = 75, enotsup = 95, eshutdown = 108;
// What stands in an answer that did not come.
inline constexpr std::uint32_t unanswered = 0xffffffff;
}  // namespace err

inline constexpr std::uint64_t option_reply_magic = 0x0003e889045565a9;
inline constexpr std::uint32_t request_magic = 0x25609513;
inline constexpr std::uint32_t simple_magic = 0x67446698;
inline constexpr std::uint32_t structured_magic = 0x668e33ef;

// The whole of an option message.
std::string option(std::uint32_t number, std::string_view data = {});
// Data of INFO and GO.
std::string info_data(std::string_view name, const std::vector<std::uint16_t>& wanted = {});
// Data of LIST_META_CONTEXT and SET_META_CONTEXT.
std::string meta_data(std::string_view name, const std::vector<std::string>& queries);

struct OptionReply {
  std::uint64_t magic = 0;
  std::uint32_t option = 0;
  std::uint32_t type = 0;
  std::string data;
  bool final() const { return type == rep::ack || type >= 0x80000000; }
};

// Everything that came for one option.
struct OptionAnswer {
  std::vector<OptionReply> replies;
  // The type of the last one; 0 when nothing came.
  std::uint32_t end() const { return replies.empty() ? 0 : replies.back().type; }
  bool acked() const { return end() == rep::ack; }
  std::string text() const { return replies.empty() ? "" : replies.back().data; }
  // Data of the replies of `type`.
  std::vector<std::string> all(std::uint32_t type) const;
  // Of INFO and GO: what follows the type, when that was sent.
  std::optional<std::string> info(std::uint16_t type) const;
  std::uint64_t size() const { return number(info(inf::size).value_or("").substr(0, 8)); }
  std::uint16_t flags() const;
  std::uint64_t block_size(unsigned which) const;  // 0 minimum, 1 preferred, 2 maximum payload
};

struct Request {
  std::uint16_t command = cmd::read;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  std::uint16_t flags = 0;
  std::string payload;
  std::uint64_t cookie = 0;  // 0: the client takes the next one
  std::uint32_t magic = request_magic;
  std::string bytes() const;
};

// One reply message of either kind.
struct Message {
  std::uint32_t magic = 0;
  std::uint32_t error = 0;  // simple
  std::uint16_t flags = 0;  // structured
  std::uint16_t type = 0;   // structured
  std::uint64_t cookie = 0;
  std::string data;  // what follows the header
  bool simple() const { return magic == simple_magic; }
  bool done() const { return simple() || (flags & 1) != 0; }
  // Of content chunks.
  std::uint64_t offset() const { return number(std::string_view(data).substr(0, 8)); }
  std::uint64_t length() const;
};

struct Extent {
  std::uint64_t length;
  std::uint64_t status;
  bool operator==(const Extent&) const = default;
};

// Everything that came for one request.
struct Answer {
  std::vector<Message> messages;
  std::uint32_t error = err::unanswered;  // of the last one that had any
  std::string text;
  std::optional<std::uint64_t> error_offset;
  std::string data;             // READ: put together, holes as zeroes, from the request's offset on
  std::vector<Extent> extents;  // BLOCK_STATUS
  bool good() const { return error == err::ok; }
  bool simple() const { return messages.size() == 1 && messages.front().simple(); }
};

class WireClient {
 public:
  WireClient(sim::Scheduler& scheduler, std::unique_ptr<sim::SimStream> stream)
      : scheduler_(scheduler), stream_(std::move(stream)) {}

  // False when the server does not take all of it: it left, or waits until it is heard.
  bool says(std::string_view bytes);
  // `n` bytes, or fewer when the server has no more to say, even if time passes, or left.
  std::string hears(std::size_t n);
  // What the server says by itself, time standing still.
  std::string hears_the_rest();
  // The server left, and all that it said was heard.
  bool was_closed();
  void ends() { stream_->end(); }  // half-closes
  void leaves() { stream_->close(); }
  void loses() { stream_->lose(); }  // the line is cut
  sim::SimStream& stream() { return *stream_; }

  // Negotiation. Returns what the server said first.
  std::string greets(std::uint32_t flags = 3);
  OptionAnswer asks(std::uint32_t number, std::string_view data = {});
  // What comes until a final reply.
  OptionAnswer hears_option_answer();
  OptionAnswer lists() { return asks(opt::list); }
  OptionAnswer infos(std::string_view name, const std::vector<std::uint16_t>& wanted = {}) {
    return asks(opt::info, info_data(name, wanted));
  }
  OptionAnswer goes(std::string_view name, const std::vector<std::uint16_t>& wanted = {}) {
    return asks(opt::go, info_data(name, wanted));
  }
  bool structures() {
    structured_ = asks(opt::structured_reply).acked();
    return structured_;
  }
  OptionAnswer sets_meta(std::string_view name, const std::vector<std::string>& queries) {
    return asks(opt::set_meta, meta_data(name, queries));
  }

  // Transmission. Sends and returns the cookie.
  std::uint64_t sends(Request request);
  // What comes until the request is answered; answers to others are kept for whoever asks for them.
  Answer answer(std::uint64_t cookie);
  // The next message, whoever asked for it.
  std::optional<Message> hears_message();
  Answer does(Request request) { return answer(sends(std::move(request))); }
  Answer reads(std::uint64_t offset, std::uint64_t length, std::uint16_t flags = 0) {
    return does({cmd::read, offset, length, flags, {}});
  }
  Answer writes(std::uint64_t offset, std::string data, std::uint16_t flags = 0) {
    const std::uint64_t length = data.size();
    return does({cmd::write, offset, length, flags, std::move(data)});
  }
  Answer does(std::uint16_t command, std::uint64_t offset, std::uint64_t length,
              std::uint16_t flags = 0) {
    return does({command, offset, length, flags, {}});
  }

 private:
  struct Asked {
    std::uint16_t command;
    std::uint64_t offset;
    std::uint64_t length;
    std::vector<Message> heard;
    bool complete = false;
  };
  Asked* asked_by(std::uint64_t cookie);
  sim::Scheduler& scheduler_;
  std::unique_ptr<sim::SimStream> stream_;
  bool structured_ = false;
  std::uint64_t next_cookie_ = 1;
  std::multimap<std::uint64_t, Asked> asked_;
};

}  // namespace test
