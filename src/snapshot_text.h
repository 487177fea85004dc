// snapshot_text.h - an internal snapshot as people and as programs read it.
#pragma once

#include <string>

#include "graph/base/json.h"
#include "graph/port.h"

namespace app {

// QEMU's SnapshotInfo.
Json snapshot_json(const graph::Port& snapshot);
// A line without its end: id, name, date, what is kept of a machine.
std::string snapshot_line(const graph::Port& snapshot);
// "2026-11-29 20:45:47", in the time zone of this machine.
std::string date_text(std::chrono::nanoseconds since_epoch);

}  // namespace app
