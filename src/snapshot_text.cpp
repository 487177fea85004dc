#include "src/snapshot_text.h"

#include <fmt/format.h>

#include <ctime>

#include "graph/base/log.h"

namespace app {
namespace {

constexpr std::uint32_t second = 1'000'000'000;  // in nanoseconds

}  // namespace

Json snapshot_json(const graph::Port& snapshot) {
  Json json{JsonObject()};
  json.set("id", snapshot.id);
  json.set("name", snapshot.name);
  json.set("vm-state-size", snapshot.machine_state_size);
  json.set("date-sec", snapshot.taken.count() / second);
  json.set("date-nsec", snapshot.taken.count() % second);
  const auto clock = static_cast<std::uint64_t>(snapshot.machine_clock.count());
  json.set("vm-clock-sec", clock / second);
  json.set("vm-clock-nsec", clock % second);
  if (snapshot.instructions) json.set("icount", *snapshot.instructions);
  return json;
}

std::string date_text(std::chrono::nanoseconds since_epoch) {
  const std::time_t when = std::chrono::floor<std::chrono::seconds>(since_epoch).count();
  std::tm parts{};
  char text[32] = "?";
  if (::localtime_r(&when, &parts) != nullptr) {
    std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts);
  }
  return text;
}

std::string snapshot_line(const graph::Port& snapshot) {
  const std::uint64_t clock_ms =
      static_cast<std::uint64_t>(snapshot.machine_clock.count()) / 1'000'000;
  const std::uint64_t clock = clock_ms / 1000;
  return fmt::format("{:<9} {:<20} {}  VM state {} bytes, VM clock {:02}:{:02}:{:02}.{:03}",
                     printable(snapshot.id), printable(snapshot.name), date_text(snapshot.taken),
                     snapshot.machine_state_size, clock / 3600, clock / 60 % 60, clock % 60,
                     clock_ms % 1000);
}

}  // namespace app
