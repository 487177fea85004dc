#include "tests/support/nbd_fuzz.h"

#include <algorithm>
#include <iterator>

#include "tests/support/nbd_fixture.h"

namespace test {
namespace {

constexpr std::size_t input_max = 64 * KiB;
constexpr std::size_t options_max = 200;  // fewer than the server puts up with
constexpr std::uint32_t payload_options[] = {opt::info, opt::go, opt::list_meta, opt::set_meta};

unsigned byte_at(std::string_view bytes, std::size_t at) {
  return at < bytes.size() ? static_cast<unsigned char>(bytes[at]) : 0;
}

HostOptions options_of(unsigned choice) {
  HostOptions options(sim::all_segments[choice % std::size(sim::all_segments)]);
  options.seed = choice;
  options.exports = {"", "disk"};
  return options;
}

// All that a server says during negotiation is replies with the magic number, up to the answer to
// EXPORT_NAME or the first reply to a request; with chunks only chunks and simple replies without
// payload.
void expect_chunks(std::string_view heard) {
  while (!heard.empty()) {
    const std::uint64_t magic = number(heard.substr(0, 4));
    if (magic == simple_magic) {
      EXPECT_GE(heard.size(), 16U);
      heard.remove_prefix(std::min<std::size_t>(16, heard.size()));
      continue;
    }
    EXPECT_EQ(magic, structured_magic);
    EXPECT_GE(heard.size(), 20U);
    if (magic != structured_magic || heard.size() < 20) return;
    const std::uint64_t length = number(heard.substr(16, 4));
    EXPECT_LE(length, heard.size() - 20);
    heard.remove_prefix(std::min<std::size_t>(20 + length, heard.size()));
  }
}

void part(NbdHost& host, WireClient& client, unsigned choice) {
  if (choice % 2 == 0) {
    client.leaves();
  } else {
    client.ends();
    client.hears_the_rest();
  }
  client.leaves();
  EXPECT_TRUE(host.nobody_is_left());
  WireClient& polite = host.attached("");
  EXPECT_TRUE(polite.writes(10, "polite").good());
  EXPECT_EQ(polite.reads(10, 6).data, "polite");
}

void spoil(std::string& message, sim::Scheduler& dice) {
  for (std::uint64_t n = dice.choose(4); n > 0 && !message.empty(); --n) {
    message[dice.choose(message.size())] = static_cast<char>(dice.choose(256));
  }
  if (dice.one_in(8)) message.resize(dice.choose(message.size() + 1));
}

std::string draw_name(sim::Scheduler& dice) {
  const std::string_view names[] = {"", "disk", "nobody", "\xff", "disk\0"};
  return std::string(names[dice.choose(std::size(names))]);
}

}  // namespace

void feed_negotiation(std::string_view bytes) {
  const unsigned choice = byte_at(bytes, 0);
  NbdHost host(options_of(choice));
  WireClient& client = host.client();
  client.hears(18);

  client.says(bytes.substr(std::min<std::size_t>(1, bytes.size())).substr(0, input_max));
  client.hears_the_rest();

  part(host, client, choice);
}

void feed_options(std::string_view bytes) {
  const unsigned choice = byte_at(bytes, 0);
  NbdHost host(options_of(choice));
  WireClient& client = host.client();
  client.greets();
  if (byte_at(bytes, 1) % 2 != 0) {
    EXPECT_TRUE(client.structures());
  }
  bytes.remove_prefix(std::min<std::size_t>(2, bytes.size()));

  for (std::size_t count = 0; count < options_max && !bytes.empty(); ++count) {
    const std::uint32_t number = payload_options[byte_at(bytes, 0) % std::size(payload_options)];
    const std::size_t length = byte_at(bytes, 1) << 8 | byte_at(bytes, 2);
    bytes.remove_prefix(std::min<std::size_t>(3, bytes.size()));
    const std::string_view data = bytes.substr(0, length);
    bytes.remove_prefix(data.size());
    const OptionAnswer answer = client.asks(number, data);
    EXPECT_NE(answer.end(), 0U) << "option " << number << " was not answered to the end";
    for (const OptionReply& reply : answer.replies) {
      EXPECT_EQ(reply.magic, option_reply_magic);
      EXPECT_EQ(reply.option, number);
    }
    if (answer.end() == 0 || (number == opt::go && answer.acked())) break;
  }

  part(host, client, choice);
}

void feed_requests(std::string_view bytes) {
  const unsigned choice = byte_at(bytes, 0);
  const unsigned how = byte_at(bytes, 1);
  const std::string_view exports[] = {"", "ro", "broken", "block4096"};
  Attach attach;
  attach.structured = (how & 1) != 0;
  attach.meta = (how & 2) != 0;
  attach.sized = (how & 4) != 0;
  const std::string_view name = exports[how >> 3 & 3];
  HostOptions options = options_of(choice);
  options.exports = {""};
  if (!name.empty()) options.exports.emplace_back(name);
  NbdHost host(options);
  if (name == "broken") host.put(name, 480 * KiB, pattern(50'000));
  WireClient& client = host.attached(name, attach);

  client.says(bytes.substr(std::min<std::size_t>(2, bytes.size())).substr(0, input_max));
  const std::string heard = client.hears_the_rest();
  if (attach.structured) expect_chunks(heard);

  part(host, client, choice);
}

std::string draw_negotiation(sim::Scheduler& dice) {
  std::string bytes(1, static_cast<char>(dice.choose(256)));
  bytes += be32(dice.one_in(8) ? dice.choose(16) : 3);
  for (std::uint64_t n = 1 + dice.choose(8); n > 0; --n) {
    const std::string name = draw_name(dice);
    std::string message;
    switch (dice.choose(8)) {
      case 0:
        message = option(opt::list);
        break;
      case 1:
        message = option(opt::structured_reply);
        break;
      case 2:
        message = option(opt::info, info_data(name, {inf::name, inf::block_size}));
        break;
      case 3:
        message = option(opt::go, info_data(name, {inf::description}));
        break;
      case 4:
        message = option(opt::list_meta, meta_data(name, {"base:"}));
        break;
      case 5:
        message = option(opt::set_meta, meta_data(name, {"base:allocation", "x:y"}));
        break;
      case 6:
        message = option(opt::export_name, name);
        break;
      default:
        message =
            option(static_cast<std::uint32_t>(dice.choose(12)), std::string(dice.choose(100), 'x'));
    }
    spoil(message, dice);
    bytes += message;
  }
  return bytes;
}

std::string draw_options(sim::Scheduler& dice) {
  std::string bytes{static_cast<char>(dice.choose(256)), static_cast<char>(dice.choose(2))};
  for (std::uint64_t n = 1 + dice.choose(6); n > 0; --n) {
    const std::uint64_t which = dice.choose(std::size(payload_options));
    const std::string name = draw_name(dice);
    std::string data;
    if (which < 2) {
      std::vector<std::uint16_t> wanted(dice.choose(5));
      for (auto& type : wanted) type = static_cast<std::uint16_t>(dice.choose(6));
      data = info_data(name, wanted);
    } else {
      const std::string queries[] = {"base:", "base:allocation", "x:y", "", ":"};
      std::vector<std::string> asked(dice.choose(4));
      for (auto& query : asked) query = queries[dice.choose(std::size(queries))];
      data = meta_data(name, asked);
    }
    if (dice.one_in(2)) spoil(data, dice);
    bytes += static_cast<char>(which);
    bytes += be16(data.size());
    bytes += data;
  }
  return bytes;
}

std::string draw_requests(sim::Scheduler& dice) {
  std::string bytes{static_cast<char>(dice.choose(256)), static_cast<char>(dice.choose(256))};
  for (std::uint64_t n = 1 + dice.choose(12); n > 0; --n) {
    Request request;
    request.command = static_cast<std::uint16_t>(dice.choose(9));
    request.cookie = dice.choose(5);
    request.flags = static_cast<std::uint16_t>(dice.one_in(2) ? 0 : dice.choose(64));
    request.offset = dice.choose(NbdHost::small_size + 5000);
    request.length = dice.one_in(5) ? dice.choose(200'000) : dice.choose(5000);
    if (dice.one_in(2)) request.offset &= ~4095U, request.length &= ~4095U;
    if (request.command == cmd::write)
      request.payload = pattern(std::min<std::uint64_t>(request.length, 8000));
    if (request.command == cmd::write && dice.one_in(2)) request.length = request.payload.size();
    std::string message = request.bytes();
    if (dice.one_in(3)) spoil(message, dice);
    bytes += message;
  }
  return bytes;
}

}  // namespace test
