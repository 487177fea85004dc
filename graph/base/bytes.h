// bytes.h - numbers as they stand on the wire and on disk, byte ranges, and arithmetic that can't
// wrap.
#pragma once

#include <bit>
#include <cassert>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>

inline constexpr std::uint64_t KiB = 1024;
inline constexpr std::uint64_t MiB = 1024 * KiB;
inline constexpr std::uint64_t GiB = 1024 * MiB;

// The sum, or nothing when it does not fit into 64 bits.
constexpr std::optional<std::uint64_t> checked_add(std::uint64_t a, std::uint64_t b) {
  std::uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

constexpr bool is_power_of_two(std::uint64_t n) { return std::has_single_bit(n); }
// Requires: `unit` is a power of two.
constexpr std::uint64_t align_down(std::uint64_t n, std::uint64_t unit) { return n & ~(unit - 1); }
// Requires: `unit` is a power of two; the result fits.
constexpr std::uint64_t align_up(std::uint64_t n, std::uint64_t unit) {
  return (n + unit - 1) & ~(unit - 1);
}
constexpr bool is_aligned(std::uint64_t n, std::uint64_t unit) { return (n & (unit - 1)) == 0; }

// [offset, offset + length), in bytes.
struct Range {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;

  // Requires: the range does not wrap; ask `lies_within` first for one that came from outside.
  constexpr std::uint64_t end() const { return offset + length; }
  constexpr bool empty() const { return length == 0; }
  // True for a range inside [0, size), without computing an end that might wrap.
  constexpr bool lies_within(std::uint64_t size) const {
    return offset <= size && length <= size - offset;
  }
  constexpr bool overlaps(Range other) const {
    return !empty() && !other.empty() && offset < other.end() && other.offset < end();
  }
  constexpr Range shifted(std::uint64_t by) const { return {offset + by, length}; }
  // The smallest range of whole units around this one.
  constexpr Range widened(std::uint64_t unit) const {
    const std::uint64_t start = align_down(offset, unit);
    return {start, align_up(end(), unit) - start};
  }
  constexpr bool operator==(const Range&) const = default;
};

namespace detail {
template <class T>
concept Fixed = std::is_enum_v<T> || std::unsigned_integral<T>;

template <Fixed T, std::endian order>
class Stored {
 public:
  constexpr Stored() = default;
  constexpr Stored(T value) : bytes_(std::bit_cast<Bytes>(swapped(to_raw(value)))) {}
  constexpr operator T() const { return static_cast<T>(swapped(std::bit_cast<Raw>(bytes_))); }
  constexpr T get() const { return *this; }

 private:
  using Raw = typename std::conditional_t<std::is_enum_v<T>, std::underlying_type<T>,
                                          std::type_identity<T>>::type;
  struct Bytes {
    std::byte at[sizeof(T)];
  };
  static constexpr Raw to_raw(T value) { return static_cast<Raw>(value); }
  static constexpr Raw swapped(Raw raw) {
    if constexpr (order == std::endian::native || sizeof(Raw) == 1) {
      return raw;
    } else {
      return std::byteswap(raw);
    }
  }
  Bytes bytes_{};
};
}  // namespace detail

// A number that is big-endian (Be) or little-endian (Le) in memory; alignment 1.
template <class T>
using Be = detail::Stored<T, std::endian::big>;
template <class T>
using Le = detail::Stored<T, std::endian::little>;

// Reads structs of Be<>/Le<> and strings off the front of a span; nothing past its end.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : rest_(bytes) {}

  template <class T>
    requires std::is_trivially_copyable_v<T> && (alignof(T) == 1)
  std::optional<T> take() {
    if (rest_.size() < sizeof(T)) return std::nullopt;
    T value;
    std::memcpy(static_cast<void*>(&value), rest_.data(), sizeof(T));
    rest_ = rest_.subspan(sizeof(T));
    return value;
  }
  // Lifetime: a view into the bytes given to the constructor.
  std::optional<std::string_view> take_string(std::size_t length) {
    if (rest_.size() < length) return std::nullopt;
    const std::string_view text(reinterpret_cast<const char*>(rest_.data()), length);
    rest_ = rest_.subspan(length);
    return text;
  }
  std::size_t remaining() const { return rest_.size(); }

 private:
  std::span<const std::byte> rest_;
};

template <class T>
  requires std::is_trivially_copyable_v<T> && (alignof(T) == 1)
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}
inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// True when every byte is zero; an empty span is.
bool is_zero(std::span<const std::byte> bytes);
