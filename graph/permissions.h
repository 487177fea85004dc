// permissions.h - who may do what to a node, and who puts up with whom. Rules P-1 to P-13 of
// docs/architecture.md, "Permissions"; the algebra of every change is in transaction.cpp.
#pragma once

#include <cstdint>
#include <string>

namespace graph {

// The bit numbers are those of QEMU's: they name bytes of image files that both lock.
enum class Permission : std::uint8_t {
  consistent_read = 1,
  write = 2,
  write_unchanged = 4,  // writes that change nothing a reader could see
  resize = 8,
};

class Permissions {
 public:
  constexpr Permissions() = default;
  constexpr Permissions(Permission one) : bits_(static_cast<std::uint8_t>(one)) {}
  static constexpr Permissions none() { return {}; }
  static constexpr Permissions all() { return from_bits(15); }
  static constexpr Permissions from_bits(unsigned bits) {
    Permissions result;
    result.bits_ = static_cast<std::uint8_t>(bits & 15);
    return result;
  }
  constexpr unsigned bits() const { return bits_; }
  constexpr bool has(Permission one) const { return (bits_ & static_cast<unsigned>(one)) != 0; }
  constexpr bool has_any(Permissions some) const { return (bits_ & some.bits_) != 0; }
  constexpr bool empty() const { return bits_ == 0; }
  constexpr Permissions operator|(Permissions other) const {
    return from_bits(bits_ | other.bits_);
  }
  constexpr Permissions operator&(Permissions other) const {
    return from_bits(bits_ & other.bits_);
  }
  constexpr Permissions without(Permissions other) const { return from_bits(bits_ & ~other.bits_); }
  constexpr bool operator==(const Permissions&) const = default;
  // "write, resize"
  std::string text() const;

 private:
  std::uint8_t bits_ = 0;
};
constexpr Permissions operator|(Permission a, Permission b) { return Permissions(a) | b; }

// What one user of a node does, and what it lets the others do.
struct Access {
  Permissions taken;
  Permissions shared = Permissions::all();
  constexpr bool operator==(const Access&) const = default;
};

// What a parent uses a child for.
enum class Role : std::uint8_t {
  filtered,  // the child's content is the parent's content
  image,     // data and metadata of a format in one file
  data,      // a format's data alone
  metadata,  // a format's metadata alone
  backing,   // the layer below
  window,    // raw: the child's bytes, or a part of them, with the rights of the parent's own users
};
std::string_view to_string(Role role);

// What a parent that is used as `own` does to a child in `role` (P-3 to P-6).
// `writable`: the parent's node may be written at all.
enum class Writable : std::uint8_t { no, yes };
Access child_access(Role role, Access own, Writable writable);

}  // namespace graph
