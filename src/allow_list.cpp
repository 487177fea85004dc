#include "src/allow_list.h"

#include <algorithm>
#include <charconv>

namespace app {
namespace {

constexpr unsigned byte_bits = 8;

// An address as its bytes, the first one first.
struct Bits {
  explicit Bits(const asio::ip::address& address) {
    if (address.is_v4()) {
      const auto v4 = address.to_v4().to_bytes();
      bytes.assign(v4.begin(), v4.end());
    } else {
      const auto v6 = address.to_v6().to_bytes();
      bytes.assign(v6.begin(), v6.end());
    }
  }
  unsigned count() const { return static_cast<unsigned>(bytes.size()) * byte_bits; }
  // Zeroes what comes after the first `kept` bits.
  Bits cut(unsigned kept) && {
    for (unsigned i = 0; i < bytes.size(); ++i) {
      const unsigned here = kept <= i * byte_bits ? 0 : std::min(kept - i * byte_bits, byte_bits);
      bytes[i] = static_cast<unsigned char>(bytes[i] & (0xff00U >> here));
    }
    return std::move(*this);
  }
  asio::ip::address address() const {
    asio::ip::address_v4::bytes_type v4;
    asio::ip::address_v6::bytes_type v6;
    if (bytes.size() == v4.size()) {
      std::ranges::copy(bytes, v4.begin());
      return asio::ip::address_v4(v4);
    }
    std::ranges::copy(bytes, v6.begin());
    return asio::ip::address_v6(v6);
  }
  bool operator==(const Bits&) const = default;

  std::vector<unsigned char> bytes;
};

std::unexpected<Error> refuse(std::string_view text, std::string_view why) {
  return failure(Errc::invalid_argument,
                 "'" + std::string(text) + "' is no network: " + std::string(why));
}

}  // namespace

Result<Network> Network::parse(std::string_view text) {
  const std::size_t slash = text.find('/');
  const std::string_view number = text.substr(0, slash);
  asio::error_code problem;
  const asio::ip::address address = asio::ip::make_address(std::string(number), problem);
  if (problem || number.contains('\0')) {
    return refuse(text, "expected an address such as 192.168.1.7 or 10.0.0.0/8 or 2001:db8::/32");
  }
  if (number.contains('%')) return refuse(text, "an interface can't be part of it");
  if (address.is_v6() && address.to_v6().is_v4_mapped()) {
    return refuse(text, "IPv4 addresses are written as such, whatever socket they come through");
  }
  const Bits bits(address);
  unsigned prefix = bits.count();
  if (slash != std::string_view::npos) {
    const std::string_view length = text.substr(slash + 1);
    const char* end = length.data() + length.size();
    const auto [stopped, wrong] = std::from_chars(length.data(), end, prefix);
    if (wrong != std::errc{} || stopped != end || prefix > bits.count()) {
      return refuse(
          text, "after the slash comes a number of bits from 0 to " + std::to_string(bits.count()));
    }
  }
  const Bits base = Bits(address).cut(prefix);
  if (base != bits) {
    return refuse(text, "it has bits set after the first " + std::to_string(prefix) +
                            "; the network is " + base.address().to_string() + "/" +
                            std::to_string(prefix));
  }
  return Network(address, prefix);
}

bool Network::contains(const asio::ip::address& address) const {
  return address.is_v4() == base_.is_v4() && Bits(address).cut(prefix_) == Bits(base_);
}

bool AllowList::admits(const Peer& peer) const {
  switch (peer.family) {
    case Peer::Family::ip:
      return std::ranges::any_of(networks,
                                 [&](const Network& item) { return item.contains(peer.address); });
    case Peer::Family::vsock:
      return std::ranges::find(cids, peer.cid) != cids.end();
    case Peer::Family::local:
    case Peer::Family::other:
      break;
  }
  return false;
}

}  // namespace app
