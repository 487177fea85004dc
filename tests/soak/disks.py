"""disks.py - the exports that a soak uses, the configuration that serves them, and who owns which part of which."""
from typing import NamedTuple

KiB, MiB = 1 << 10, 1 << 20
SECTOR = 512

SIZE = 6 * MiB  # of most disks
BORDER = SIZE // 2 + 3 * SECTOR  # between two windows of one disk, inside a page
FULL_SECTOR = 1000  # of `faulty`: a write to it is ENOSPC
DEAF_SECTOR = 5000  # of `faulty`: write-zeroes there are EIO
LOST_SECTOR = SIZE // SECTOR - 1  # of `faulty`: a read of it is EIO

NODES = f"""
[nodes.cached]
driver = "raw"
file = {{ driver = "file", filename = "cached.img", create.size = "{SIZE}" }}

[nodes.direct]
driver = "raw"
file = {{ driver = "file", filename = "direct.img", create.size = "{SIZE}", cache.direct = true }}

[nodes.memory]
driver = "memory"
size = "{SIZE}"

[nodes.null]
driver = "null-co"
size = "1G"

[nodes.faulty]
driver = "blkdebug"
image = {{ driver = "file", filename = "faulty.img", create.size = "{SIZE}" }}
inject-error = [
  {{ event = "none", iotype = "write", errno = 28, sector = {FULL_SECTOR} }},
  {{ event = "none", iotype = "write-zeroes", errno = 5, sector = {DEAF_SECTOR} }},
  {{ event = "none", iotype = "read", errno = 5, sector = {LOST_SECTOR} }},
]

[nodes.padded]
driver = "blkdebug"
image = {{ driver = "file", filename = "padded.img", create.size = "{SIZE}" }}
align = 4096
max-transfer = {64 * KiB}

[nodes.logged]
driver = "blklogwrites"
file = {{ driver = "file", filename = "logged.img", create.size = "{SIZE}" }}
log = {{ driver = "file", filename = "log", create.size = "0" }}

[nodes.halves]
driver = "file"
filename = "halves.img"
create.size = "{SIZE}"
cache.direct = true

[exports.left]
node = "halves"
size = {BORDER}
writable = true

[exports.right]
node = "halves"
offset = {BORDER}
writable = true
"""
TOOLS = "nbdcopy", "qemu", "fio"  # whose disk it is
WHOLE = "cached", "direct", "memory", "null", "faulty", "padded", "logged", *TOOLS  # nodes that are exports, too


class Slot(NamedTuple):
    """The part of an export that one client owns: nobody else writes there."""
    export: str
    offset: int
    size: int


# Neighbours share pages, and in `padded` even the units that are read, changed and written back.
SLOTS = [Slot(export, offset, size) for export in ("cached", "direct", "padded", "memory")
         for offset, size in ((0, SIZE // 3 + 700), (SIZE // 3 + 700, SIZE - SIZE // 3 - 700))]
SLOTS += [Slot("left", 0, BORDER), Slot("right", 0, SIZE - BORDER), Slot("logged", 0, SIZE),
          Slot("faulty", 0, LOST_SECTOR * SECTOR)]


def configuration(engine, workers, log_level):
    text = (f'[server]\nlisten = ["unix:sock", "tcp:127.0.0.1:0"]\nio-engine = "{engine}"\nworkers = {workers}\n'
            f'log-level = "{log_level}"\nbuffer-memory = "64M"\n{NODES}')
    for name in TOOLS:
        text += f'\n[nodes.{name}]\ndriver = "file"\nfilename = "{name}.img"\ncreate.size = "{SIZE}"\n'
    for name in WHOLE:
        text += f'\n[exports.{name}]\nnode = "{name}"\nwritable = true\n'
    return text
