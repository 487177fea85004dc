#include "src/probe.h"

#include <array>
#include <cstdint>

#include "graph/base/bytes.h"

namespace app {
namespace {

using namespace std::string_view_literals;

enum class Place : std::uint8_t { head, tail };

struct Magic {
  std::string_view format;
  Place place;
  std::size_t offset;
  std::string_view bytes;
};

constexpr std::array magics{
    Magic{"qcow", Place::head, 0, "QFI\xfb\0\0\0\1"sv},
    Magic{"qcow2", Place::head, 0, "QFI\xfb"sv},
    Magic{"qed", Place::head, 0, "QED\0"sv},
    Magic{"vmdk", Place::head, 0, "KDMV"sv},
    Magic{"vmdk", Place::head, 0, "COWD"sv},
    Magic{"vmdk", Place::head, 0, "# Disk DescriptorFile"sv},
    Magic{"vdi", Place::head, 0x40, "\x7f\x10\xda\xbe"sv},
    Magic{"vhdx", Place::head, 0, "vhdxfile"sv},
    Magic{"vpc", Place::head, 0, "conectix"sv},
    Magic{"vpc", Place::tail, 0, "conectix"sv},  // a fixed disk has a footer only
    Magic{"vpc", Place::tail, 1, "conectix"sv},  // of 511 bytes in old files
    Magic{"luks", Place::head, 0, "LUKS\xba\xbe"sv},
    Magic{"parallels", Place::head, 0, "WithoutFreeSpace"sv},
    Magic{"parallels", Place::head, 0, "WithouFreSpacExt"sv},
    Magic{"bochs", Place::head, 0, "Bochs Virtual HD Image"sv},
    Magic{"cloop", Place::head, 0, "#!/bin/sh\n#V2.0 Format\n"sv},
    Magic{"dmg", Place::tail, 0, "koly"sv},
};

}  // namespace

std::string_view probe_format(std::span<const std::byte> head, std::span<const std::byte> tail) {
  const auto text = [](std::span<const std::byte> bytes) {
    return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  // the last 512 bytes start at offset 0 of what a magic number in the tail counts from
  const std::string_view start = text(head);
  const std::string_view end =
      tail.size() < probe_tail_size ? "" : text(tail.last(probe_tail_size));
  for (const Magic& magic : magics) {
    const std::string_view where = magic.place == Place::head ? start : end;
    if (where.size() >= magic.offset && where.substr(magic.offset).starts_with(magic.bytes)) {
      return magic.format;
    }
  }
  return "raw";
}

}  // namespace app
