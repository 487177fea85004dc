// file_locks.h - keeps other processes, QEMU among them, off an image that is in use: the rights of
// a node's users as shared OFD locks on single bytes of the file. Byte 100 + i: "I hold permission
// i"; byte 200 + i: "I do not share permission i" (P-11). The bytes need not exist.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "graph/base/engine.h"
#include "graph/permissions.h"

namespace graph {

class FileLocks {
 public:
  // Why a lock could not be had.
  struct Refusal {
    int error = 0;        // errno of a call that failed, or 0: somebody else is in the way
    std::string message;  // QEMU's words: tools parse them
  };

  // Takes what `own` needs beside what is held, then asks whether anybody objects. Towards other
  // processes a writer never shares write, whatever its own users share inside. A refusal leaves
  // the locks as they were.
  std::optional<Refusal> prepare(EngineFile& file, Access own);
  // Lets go of what is needed no more.
  void commit(EngineFile& file);
  // Back to what was held before prepare().
  void abort(EngineFile& file);
  void release_all(EngineFile& file);

 private:
  // A set of the lock bytes: bit i is byte 100 + i, bit 8 + i is byte 200 + i.
  using Bytes = std::uint16_t;
  static Bytes bytes_of(Access own);
  void unlock(EngineFile& file, Bytes bytes);
  Bytes held_ = 0;
  Bytes before_ = 0;  // held when prepare() began
  Bytes wanted_ = 0;
};

}  // namespace graph
