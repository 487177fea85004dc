#include "tests/support/wire_client.h"

#include <algorithm>
#include <cstring>

namespace test {
namespace {

std::string big_endian(std::uint64_t n, unsigned size) {
  std::string bytes(size, '\0');
  for (unsigned i = 0; i < size; ++i) bytes[size - 1 - i] = static_cast<char>(n >> (8 * i));
  return bytes;
}

Answer put_together(std::uint64_t offset, const std::vector<Message>& messages) {
  Answer answer;
  answer.messages = messages;
  if (!messages.empty() && messages.back().done()) answer.error = err::ok;
  for (const Message& message : messages) {
    const std::string_view data = message.data;
    const auto place = [&](std::uint64_t at, std::string_view bytes) {
      if (at < offset || at - offset > (1U << 30)) return;
      const std::uint64_t end = at - offset + bytes.size();
      if (answer.data.size() < end) answer.data.resize(end);
      std::ranges::copy(bytes, answer.data.begin() + static_cast<std::ptrdiff_t>(at - offset));
    };
    if (message.simple()) {
      answer.error = message.error;
      answer.data = message.data;
    } else if (message.type == chunk::offset_data) {
      place(message.offset(), data.substr(std::min<std::size_t>(8, data.size())));
    } else if (message.type == chunk::offset_hole) {
      place(message.offset(), std::string(message.length(), '\0'));
    } else if (message.type == chunk::error || message.type == chunk::error_offset) {
      answer.error = static_cast<std::uint32_t>(number(data.substr(0, 4)));
      const std::size_t length = number(data.substr(4, 2));
      answer.text = data.substr(6, length);
      if (message.type == chunk::error_offset)
        answer.error_offset = number(data.substr(6 + length));
    } else if (message.type == chunk::block_status) {
      for (std::size_t at = 4; at + 8 <= data.size(); at += 8) {
        answer.extents.push_back({number(data.substr(at, 4)), number(data.substr(at + 4, 4))});
      }
    }
  }
  return answer;
}

}  // namespace

std::string be16(std::uint64_t n) { return big_endian(n, 2); }
std::string be32(std::uint64_t n) { return big_endian(n, 4); }
std::string be64(std::uint64_t n) { return big_endian(n, 8); }

std::uint64_t number(std::string_view bytes) {
  std::uint64_t n = 0;
  for (const char byte : bytes.substr(0, 8)) n = n << 8 | static_cast<unsigned char>(byte);
  return n;
}

std::string option(std::uint32_t number, std::string_view data) {
  return "IHAVEOPT" + be32(number) + be32(data.size()) + std::string(data);
}

std::string info_data(std::string_view name, const std::vector<std::uint16_t>& wanted) {
  std::string data = be32(name.size()) + std::string(name) + be16(wanted.size());
  for (const std::uint16_t type : wanted) data += be16(type);
  return data;
}

std::string meta_data(std::string_view name, const std::vector<std::string>& queries) {
  std::string data = be32(name.size()) + std::string(name) + be32(queries.size());
  for (const std::string& query : queries) data += be32(query.size()) + query;
  return data;
}

std::vector<std::string> OptionAnswer::all(std::uint32_t type) const {
  std::vector<std::string> found;
  for (const OptionReply& reply : replies) {
    if (reply.type == type) found.push_back(reply.data);
  }
  return found;
}

std::optional<std::string> OptionAnswer::info(std::uint16_t type) const {
  for (const std::string& data : all(rep::info)) {
    if (data.size() >= 2 && number(data.substr(0, 2)) == type) return data.substr(2);
  }
  return std::nullopt;
}

std::uint16_t OptionAnswer::flags() const {
  const std::string data = info(inf::size).value_or("");
  return data.size() == 10 ? static_cast<std::uint16_t>(number(data.substr(8))) : 0;
}

std::uint64_t OptionAnswer::block_size(unsigned which) const {
  const std::string data = info(inf::block_size).value_or("");
  return data.size() == 12 ? number(data.substr(std::size_t{4} * which, 4)) : 0;
}

std::string Request::bytes() const {
  return be32(magic) + be16(flags) + be16(command) + be64(cookie) + be64(offset) + be32(length) +
         payload;
}

std::uint64_t Message::length() const {
  if (type == chunk::offset_data) return data.size() - std::min<std::size_t>(8, data.size());
  return data.size() == 12 ? number(std::string_view(data).substr(8)) : 0;
}

bool WireClient::says(std::string_view bytes) {
  while (!bytes.empty()) {
    const ConstBuffers list(bytes_of(bytes));
    const auto n = stream_->write_now(list);
    if (!n) return false;
    bytes.remove_prefix(*n);
    if (*n > 0) continue;
    scheduler_.settle();
    if (!stream_->has_room()) return false;
  }
  return true;
}

std::string WireClient::hears(std::size_t n) {
  std::string heard(n, '\0');
  std::size_t have = 0;
  while (have < n) {
    if (!stream_->has_news() && !scheduler_.run_until([&] { return stream_->has_news(); })) break;
    const auto more = stream_->read_now(std::as_writable_bytes(std::span(heard)).subspan(have));
    if (!more) break;
    have += *more;
  }
  heard.resize(have);
  return heard;
}

std::string WireClient::hears_the_rest() {
  std::string heard;
  while (true) {
    scheduler_.settle();
    std::byte piece[4096];
    const auto more = stream_->has_news() ? stream_->read_now(piece) : 0;
    if (!more || *more == 0) return heard;
    heard.append(reinterpret_cast<const char*>(piece), *more);
  }
}

bool WireClient::was_closed() {
  scheduler_.settle();
  std::byte none[1];
  return stream_->has_news() && !stream_->read_now(std::span(none).first(0));
}

std::string WireClient::greets(std::uint32_t flags) {
  std::string heard = hears(18);
  says(be32(flags));
  return heard;
}

OptionAnswer WireClient::asks(std::uint32_t number, std::string_view data) {
  if (!says(option(number, data))) return {};
  return hears_option_answer();
}

OptionAnswer WireClient::hears_option_answer() {
  OptionAnswer answer;
  while (true) {
    const std::string head = hears(20);
    if (head.size() < 20) return answer;
    OptionReply reply;
    reply.magic = number(head.substr(0, 8));
    reply.option = static_cast<std::uint32_t>(number(head.substr(8, 4)));
    reply.type = static_cast<std::uint32_t>(number(head.substr(12, 4)));
    const std::size_t length = number(head.substr(16, 4));
    if (length > 64 * MiB) return answer;
    reply.data = hears(length);
    if (reply.data.size() < length) return answer;
    answer.replies.push_back(std::move(reply));
    if (answer.replies.back().final()) return answer;
  }
}

std::uint64_t WireClient::sends(Request request) {
  if (request.cookie == 0) request.cookie = next_cookie_++;
  asked_.emplace(request.cookie, Asked{request.command, request.offset, request.length, {}});
  says(request.bytes());
  return request.cookie;
}

// The oldest request with this cookie that is not answered yet.
WireClient::Asked* WireClient::asked_by(std::uint64_t cookie) {
  const auto [first, last] = asked_.equal_range(cookie);
  for (auto it = first; it != last; ++it) {
    if (!it->second.complete) return &it->second;
  }
  return nullptr;
}

std::optional<Message> WireClient::hears_message() {
  Message message;
  const std::string head = hears(16);
  if (head.size() < 16) return std::nullopt;
  message.magic = static_cast<std::uint32_t>(number(head.substr(0, 4)));
  message.cookie = number(head.substr(8, 8));
  Asked* asked = asked_by(message.cookie);
  std::size_t length = 0;
  if (message.simple()) {
    message.error = static_cast<std::uint32_t>(number(head.substr(4, 4)));
    const bool payload = asked != nullptr && asked->command == cmd::read && message.error == 0;
    length = payload ? asked->length : 0;
  } else if (message.magic == structured_magic) {
    message.flags = static_cast<std::uint16_t>(number(head.substr(4, 2)));
    message.type = static_cast<std::uint16_t>(number(head.substr(6, 2)));
    const std::string rest = hears(4);
    if (rest.size() < 4) return std::nullopt;
    length = number(rest);
  } else {
    return message;  // nonsense: there is no telling what follows
  }
  message.data = hears(length);
  if (message.data.size() < length) return std::nullopt;
  if (asked != nullptr) {
    asked->heard.push_back(message);
    asked->complete = message.done();
  }
  return message;
}

Answer WireClient::answer(std::uint64_t cookie) {
  while (true) {
    const auto found = asked_.find(cookie);
    if (found == asked_.end()) return {};
    if (!found->second.complete) {
      const auto message = hears_message();
      const bool sense = message && (message->simple() || message->magic == structured_magic);
      if (sense) continue;
    }
    Answer answer = put_together(found->second.offset, found->second.heard);
    asked_.erase(found);
    return answer;
  }
}

}  // namespace test
