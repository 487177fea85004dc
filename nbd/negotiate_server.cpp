#include "nbd/negotiate_server.h"

#include <algorithm>
#include <array>
#include <bit>
#include <string>
#include <utility>
#include <vector>

#include "nbd/meta_context.h"
#include "nbd/wire.h"

namespace nbd {
namespace {

constexpr std::size_t option_bytes_factor = 16;  // options of full length in one session
constexpr std::uint32_t block_size_minimum_max = 64 * KiB;
// Memory grows with what arrived, not with what was announced.
constexpr std::size_t piece_max = option_piece;

// The answer to an option that can't be had: its type and a text for people.
struct Refusal {
  OptionReply type;
  std::string text;
  Refusal(OptionReply reply, std::string why) : type(reply), text(std::move(why)) {}
};

// INFO and GO: "NBD_OPT_INFO and NBD_OPT_GO".
struct InfoRequest {
  std::string name;
  std::vector<InfoType> wanted;
  bool wants(InfoType type) const { return std::ranges::find(wanted, type) != wanted.end(); }
};

struct MetaRequest {
  std::string name;
  bool any_query = false;
  bool base_allocation = false;
};

std::expected<std::string, Refusal> take_name(ByteReader& data) {
  const auto length = data.take<Be<std::uint32_t>>();
  if (!length) return std::unexpected(Refusal(OptionReply::error_invalid, "the name is missing"));
  if (*length > data.remaining()) {
    return std::unexpected(
        Refusal(OptionReply::error_invalid, "the name is longer than the option"));
  }
  if (*length > string_length_max) {
    return std::unexpected(
        Refusal(OptionReply::error_invalid, "the name is longer than 4096 bytes"));
  }
  const std::string_view name = data.take_string(*length).value_or("");
  if (name.contains('\0')) {
    return std::unexpected(Refusal(OptionReply::error_invalid, "the name has a NUL in it"));
  }
  return std::string(name);
}

std::expected<InfoRequest, Refusal> parse_info(std::span<const std::byte> bytes) {
  ByteReader data(bytes);
  auto name = take_name(data);
  if (!name) return std::unexpected(std::move(name).error());
  InfoRequest request;
  request.name = *std::move(name);
  const auto count = data.take<Be<std::uint16_t>>();
  if (!count || data.remaining() != std::size_t{2} * *count) {
    return std::unexpected(Refusal(OptionReply::error_invalid,
                                   "the number of information requests is not what follows"));
  }
  for (unsigned i = 0; i < *count; ++i) request.wanted.push_back(*data.take<Be<InfoType>>());
  return request;
}

std::expected<MetaRequest, Refusal> parse_meta(std::span<const std::byte> bytes,
                                               QueryPurpose purpose) {
  const auto broken = [] {
    return std::unexpected(Refusal(OptionReply::error_invalid, "the queries are not what follows"));
  };
  ByteReader data(bytes);
  auto name = take_name(data);
  if (!name) return std::unexpected(std::move(name).error());
  MetaRequest request;
  request.name = *std::move(name);
  const auto count = data.take<Be<std::uint32_t>>();
  if (!count) return broken();
  request.any_query = *count > 0;
  for (std::uint32_t i = 0; i < *count; ++i) {
    const auto length = data.take<Be<std::uint32_t>>();
    if (!length) return broken();
    const auto query = data.take_string(*length);
    if (!query) return broken();
    if (matches_base_allocation(*query, purpose)) request.base_allocation = true;
  }
  if (data.remaining() != 0) return broken();
  return request;
}

class Haggle {
 public:
  Haggle(Stream& stream, Lobby& lobby) : stream_(stream), lobby_(lobby) {}

  Task<Session> run() {
    CO_CHECK(co_await greet());
    const std::size_t options_max = lobby_.options().options_max + 2 * lobby_.offers()->size();
    for (std::size_t count = 0; count < options_max; ++count) {
      CO_TRY(const bool agreed, co_await one_option());
      if (agreed) co_return session_;
    }
    co_return failure(Errc::invalid_argument,
                      "more than " + std::to_string(options_max) + " options in one session");
  }

 private:
  Task<> greet() {
    Greeting greeting;
    greeting.flags = flag_fixed_newstyle | flag_no_zeroes;
    CO_CHECK(co_await send(bytes_of(greeting)));
    Be<std::uint32_t> flags;
    CO_CHECK(co_await read_exactly(stream_, std::as_writable_bytes(std::span(&flags, 1))));
    if ((flags & ~std::uint32_t{flag_fixed_newstyle | flag_no_zeroes}) != 0) {
      co_return failure(Errc::invalid_argument, "unknown client flags");
    }
    fixed_ = (flags & flag_fixed_newstyle) != 0;
    zeroes_ = (flags & flag_no_zeroes) == 0;
    co_return ok;
  }

  // True when an export was agreed on.
  Task<bool> one_option() {
    OptionHeader header;
    CO_CHECK(co_await read_exactly(stream_, std::as_writable_bytes(std::span(&header, 1))));
    if (header.magic != option_magic) {
      co_return failure(Errc::invalid_argument, "an option with a wrong magic number");
    }
    bytes_ += header.length;
    const std::size_t length_max = lobby_.options().option_length_max;
    if (header.length > length_max || bytes_ > option_bytes_factor * length_max) {
      co_return failure(Errc::invalid_argument,
                        "an option of " + std::to_string(header.length) + " bytes");
    }
    option_ = header.option;
    const std::uint32_t length = header.length;
    if (option_ == Option::export_name) co_return co_await export_name(length);
    if (!fixed_) {
      co_return failure(Errc::invalid_argument, "an option from a client that knows none");
    }
    if (option_ == Option::abort) {
      CO_CHECK(co_await skip(length));
      (void)co_await reply(OptionReply::ack);
      co_return failure(Errc::connection_lost, "the client aborted");
    }
    if (lobby_.stopping()) {
      CO_CHECK(co_await skip(length));
      CO_CHECK(co_await refuse(Refusal(OptionReply::error_shutdown, "the server is stopping")));
      co_return false;
    }
    co_return co_await answer(length);
  }

  Task<bool> answer(std::uint32_t length) {
    switch (option_) {
      case Option::list:
      case Option::structured_reply: {
        CO_CHECK(co_await skip(length));
        if (length > 0) {
          CO_CHECK(
              co_await refuse(Refusal(OptionReply::error_invalid, "the option takes no data")));
        } else if (option_ == Option::list) {
          CO_CHECK(co_await list());
        } else {
          CO_CHECK(co_await structured_reply());
        }
        co_return false;
      }
      case Option::info:
      case Option::go:
      case Option::list_meta_context:
      case Option::set_meta_context: {
        const bool is_long = length > option_piece;
        Budget::Share room;
        if (is_long) room = lobby_.long_options().try_take(length);
        if (is_long && !room) {
          CO_CHECK(co_await turn_down(length));
          co_return false;
        }
        if (option_ == Option::info || option_ == Option::go) co_return co_await info(length);
        CO_CHECK(co_await meta_context(length));
        co_return false;
      }
      default: {
        CO_CHECK(co_await skip(length));
        CO_CHECK(co_await refuse(
            Refusal(OptionReply::error_unsupported, "the option is not known here")));
        co_return false;
      }
    }
  }

  // An option that is too long while other guests send long ones, too.
  Task<> turn_down(std::uint32_t length) {
    CO_CHECK(co_await skip(length));
    if (option_ == Option::set_meta_context) context_of_ = nullptr;
    co_return co_await refuse(
        Refusal(OptionReply::error_too_big, "too many long options at once, try again"));
  }

  // "NBD_OPT_EXPORT_NAME": there is no way to say no but to close.
  Task<bool> export_name(std::uint32_t length) {
    if (length > string_length_max) {
      co_return failure(Errc::invalid_argument, "an export name longer than 4096 bytes");
    }
    CO_TRY(const std::vector<std::byte> data, co_await take(length));
    const std::string_view name(reinterpret_cast<const char*>(data.data()), data.size());
    const auto offer = lobby_.stopping() ? nullptr : find(name);
    if (!offer) co_return failure(Errc::invalid_argument, "no export '" + printable(name) + "'");
    agree(offer, 1);
    ExportNameReply head;
    head.size = offer->size;
    head.flags = session_.flags;
    std::array<std::byte, sizeof(ExportNameReply) + export_name_padding> message{};
    std::ranges::copy(bytes_of(head), message.begin());
    CO_CHECK(co_await send(std::span(message).first(zeroes_ ? message.size() : sizeof head)));
    co_return true;
  }

  Task<> list() {
    if (lobby_.options().listing == Listing::forbidden) {
      co_return co_await refuse(
          Refusal(OptionReply::error_policy, "the exports of this server are not listed"));
    }
    std::vector<std::byte> batch;
    const std::shared_ptr<const Offers> offers = lobby_.offers();
    for (const auto& [name, offer] : *offers) {
      const std::string& description = offer->description;
      Be<std::uint32_t> name_length = static_cast<std::uint32_t>(name.size());
      put_header(batch, OptionReply::server, sizeof name_length + name.size() + description.size());
      put(batch, bytes_of(name_length));
      put(batch, bytes_of(name));
      put(batch, bytes_of(description));
      if (batch.size() >= piece_max) {
        CO_CHECK(co_await send(batch));
        batch.clear();
        co_await yield();
      }
    }
    put_header(batch, OptionReply::ack, 0);
    co_return co_await send(batch);
  }

  Task<> structured_reply() {
    if (std::exchange(session_.structured_replies, true)) {
      return refuse(Refusal(OptionReply::error_invalid, "structured replies are on already"));
    }
    return reply(OptionReply::ack);
  }

  Task<bool> info(std::uint32_t length) {
    CO_TRY(const std::vector<std::byte> data, co_await take(length));
    const auto request = parse_info(data);
    if (!request) {
      CO_CHECK(co_await refuse(request.error()));
      co_return false;
    }
    const auto offer = find(request->name);
    if (!offer) {
      CO_CHECK(co_await refuse(unknown_export(request->name)));
      co_return false;
    }
    const bool sized = request->wants(InfoType::block_size);
    std::vector<std::byte> message;
    put_info(message, *offer, *request);
    put_header(message, OptionReply::ack, 0);
    if (option_ == Option::go) agree(offer, sized ? minimum_block(*offer) : 1);
    CO_CHECK(co_await send(message));
    co_return option_ == Option::go;
  }

  // Statement 63: a node that wants more gets it from the layer that pads.
  static std::uint32_t minimum_block(const Offer& offer) {
    return std::min(offer.alignment, block_size_minimum_max);
  }

  void put_info(std::vector<std::byte>& message, const Offer& offer, const InfoRequest& request) {
    InfoExport exported;
    exported.size = offer.size;
    exported.flags = flags_for(offer);
    put_header(message, OptionReply::info, sizeof exported);
    put(message, bytes_of(exported));

    // Statement 60: always; what did not ask for it may use single bytes (statement 62).
    const std::uint32_t minimum = request.wants(InfoType::block_size) ? minimum_block(offer) : 1;
    InfoBlockSize sizes;
    sizes.minimum = minimum;
    sizes.preferred = std::bit_ceil(std::clamp<std::uint32_t>(
        offer.preferred, std::max<std::uint32_t>(minimum, 512), payload_max));
    sizes.payload_max = payload_max;
    put_header(message, OptionReply::info, sizeof sizes);
    put(message, bytes_of(sizes));

    if (request.wants(InfoType::name)) put_text(message, InfoType::name, offer.name);
    if (request.wants(InfoType::description) && !offer.description.empty()) {
      put_text(message, InfoType::description, offer.description);
    }
  }

  void put_text(std::vector<std::byte>& message, InfoType type, std::string_view text) {
    const Be<InfoType> kind = type;
    put_header(message, OptionReply::info, sizeof kind + text.size());
    put(message, bytes_of(kind));
    put(message, bytes_of(text));
  }

  // "NBD_OPT_LIST_META_CONTEXT", "NBD_OPT_SET_META_CONTEXT"
  Task<> meta_context(std::uint32_t length) {
    const bool set = option_ == Option::set_meta_context;
    CO_TRY(const std::vector<std::byte> data, co_await take(length));
    if (set) context_of_ = nullptr;  // statement 79: the old selection is gone even if this fails
    if (set && !session_.structured_replies) {
      co_return co_await refuse(
          Refusal(OptionReply::error_invalid, "structured replies must be negotiated first"));
    }
    const auto request = parse_meta(data, set ? QueryPurpose::set : QueryPurpose::list);
    if (!request) co_return co_await refuse(request.error());
    const auto offer = find(request->name);
    if (!offer) co_return co_await refuse(unknown_export(request->name));

    std::vector<std::byte> message;
    const bool everything = !set && !request->any_query;
    if (request->base_allocation || everything) {
      if (set) context_of_ = offer;
      const Be<std::uint32_t> id = set ? base_allocation_id : 0;
      put_header(message, OptionReply::meta_context, sizeof id + base_allocation.size());
      put(message, bytes_of(id));
      put(message, bytes_of(base_allocation));
    }
    put_header(message, OptionReply::ack, 0);
    co_return co_await send(message);
  }

  std::shared_ptr<const Offer> find(std::string_view name) const {
    const auto found = lobby_.offers()->find(name);
    return found == lobby_.offers()->end() ? nullptr : found->second;
  }

  void agree(const std::shared_ptr<const Offer>& offer, std::uint32_t minimum_block) {
    session_.offer = offer;
    session_.flags = flags_for(*offer);
    session_.minimum_block = minimum_block;
    session_.base_allocation = context_of_ && context_of_->name == offer->name;  // statement 80
  }

  // Statements 65 to 68: what this connection can use.
  std::uint16_t flags_for(const Offer& offer) const {
    using namespace transmission_flag;
    unsigned flags = has_flags | send_flush | send_fua | send_cache | can_multi_conn;
    if (offer.writable) {
      flags |= send_trim | send_write_zeroes | send_fast_zero;
    } else {
      flags |= read_only;
    }
    if (session_.structured_replies) flags |= send_df;
    return static_cast<std::uint16_t>(flags);
  }

  static Refusal unknown_export(std::string_view name) {
    return {OptionReply::error_unknown, "no export '" + printable(name) + "'"};
  }

  // Reads the data of an option, memory growing as it comes.
  Task<std::vector<std::byte>> take(std::size_t length) {
    std::vector<std::byte> data;
    while (data.size() < length) {
      const std::size_t start = data.size();
      data.resize(std::min(length, start + piece_max));
      CO_CHECK(co_await read_exactly(stream_, std::span(data).subspan(start)));
    }
    co_return data;
  }
  Task<> skip(std::size_t length) {
    std::array<std::byte, 4096> ignored;
    while (length > 0) {
      const std::size_t n = std::min(length, ignored.size());
      CO_CHECK(co_await read_exactly(stream_, std::span(ignored).first(n)));
      length -= n;
    }
    co_return ok;
  }

  static void put(std::vector<std::byte>& message, std::span<const std::byte> bytes) {
    message.insert(message.end(), bytes.begin(), bytes.end());
  }
  void put_header(std::vector<std::byte>& message, OptionReply type, std::size_t length) const {
    OptionReplyHeader header;
    header.option = option_;
    header.type = type;
    header.length = static_cast<std::uint32_t>(length);
    put(message, bytes_of(header));
  }
  Task<> reply(OptionReply type) {
    std::vector<std::byte> message;
    put_header(message, type, 0);
    co_return co_await send(message);
  }
  Task<> refuse(Refusal refusal) {
    std::vector<std::byte> message;
    put_header(message, refusal.type, refusal.text.size());
    put(message, bytes_of(refusal.text));
    co_return co_await send(message);
  }
  Task<> send(std::span<const std::byte> bytes) {
    const ConstBuffers list(bytes);
    co_return co_await write_all(stream_, list);
  }

  Stream& stream_;
  Lobby& lobby_;
  Session session_;
  std::shared_ptr<const Offer> context_of_;  // base:allocation was selected for it
  Option option_ = Option::abort;
  std::size_t bytes_ = 0;  // of option data so far
  bool fixed_ = false;
  bool zeroes_ = true;
};

}  // namespace

Task<Session> negotiate(Stream& stream, Lobby& lobby) {
  Haggle haggle(stream, lobby);
  co_return co_await haggle.run();
}

}  // namespace nbd
