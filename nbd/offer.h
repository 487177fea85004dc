// offer.h - what a client is told of an export before it chooses one: a copy, so that who
// negotiates need not ask the worker on which the export lives.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

namespace nbd {

// A string on the wire: UTF-8, no NUL, at most this long (proto.md, "Conventions").
inline constexpr std::size_t string_length_max = 4096;

struct Offer {
  std::string name;  // "" is the default export
  std::string description;
  std::uint64_t size = 0;  // bytes
  bool writable = false;
  std::uint32_t alignment = 1;     // below that, requests are padded; bytes
  std::uint32_t preferred = 4096;  // good for speed; bytes
};

using Offers = std::map<std::string, std::shared_ptr<const Offer>, std::less<>>;

}  // namespace nbd
