#!/usr/bin/env python3
"""replay.py LOG IMAGE [MARK]: writes to IMAGE what a log of writes says, up to MARK or to the end.

LOG is in the format of Linux's dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst), as the driver
blklogwrites, QEMU's driver of that name and the kernel's target make it. IMAGE is the disk as it was when the log
began; one that is not there begins empty. It grows as needed; what was discarded reads as zeroes. MARK is the text of
a mark in the log, or #N for the first N entries. `./dev replay` is this script."""
import os
import struct
import sys
from typing import NamedTuple

MAGIC, VERSION = 0x6a736677736872, 1
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
SUPERBLOCK = struct.Struct("<QQQL")  # magic, version, entries, bytes per sector
HEAD = struct.Struct("<QQQQ")  # sector, sectors, flags, length of the text behind
SECTOR_MIN, SECTOR_MAX = 512, 8 << 20
DISK_MAX = 1 << 63  # bytes
PIECE = 1 << 20  # bytes copied at a time


class BadLog(Exception):
    pass


class Entry(NamedTuple):
    start: int  # on the disk, in bytes
    length: int  # in bytes
    flags: int
    text: bytes  # of a mark
    data: int  # where the data is in the log, in bytes


def read_log(log):
    """Every entry of an open log, checked. Raises BadLog."""
    size = os.fstat(log.fileno()).st_size or log.seek(0, os.SEEK_END)  # a device has no st_size
    log.seek(0)
    raw = log.read(SUPERBLOCK.size)
    if len(raw) < SUPERBLOCK.size:
        raise BadLog(f"{size} bytes are too few for a log")
    magic, version, count, sector = SUPERBLOCK.unpack(raw)
    if magic != MAGIC:
        raise BadLog("no log of dm-log-writes: the magic number is wrong")
    if version != VERSION:
        raise BadLog(f"version {version} is not {VERSION}")
    if not SECTOR_MIN <= sector <= SECTOR_MAX or sector & (sector - 1):
        raise BadLog(f"sectors of {sector} bytes: no power of two from {SECTOR_MIN} to {SECTOR_MAX}")
    entries, at = [], sector
    for number in range(count):
        if at + sector > size:
            raise BadLog(f"entry {number} of {count} at byte {at} lies past the end, {size}")
        log.seek(at)
        entry, at = _entry(log.read(sector), at + sector, sector, number)
        if at > size:
            raise BadLog(f"entry {number} ends at byte {at}, the log at {size}")
        entries.append(entry)
    return entries


def _entry(raw, data, sector, number):
    """The entry whose head is in this sector, and where the next one is."""
    first, sectors, flags, text_length = HEAD.unpack(raw[:HEAD.size])
    if flags & ~(FLUSH | FUA | DISCARD | MARK):
        raise BadLog(f"entry {number} has unknown flags {flags:#x}")
    if (first + sectors) * sector > DISK_MAX:
        raise BadLog(f"entry {number}: {sectors} sectors at {first} lie past every disk")
    if flags & MARK and text_length > sector - HEAD.size:
        raise BadLog(f"entry {number}: a mark of {text_length} bytes does not fit into its sector")
    text = raw[HEAD.size:HEAD.size + text_length] if flags & MARK else b""
    entry = Entry(first * sector, sectors * sector, flags, text.rstrip(b"\0"), data)
    return entry, data if flags & DISCARD else data + entry.length


def upto(entries, mark):
    """The entries that come before a mark: its text, or #N."""
    if mark.startswith("#") and mark[1:].isdigit():
        if int(mark[1:]) > len(entries):
            raise BadLog(f"there are {len(entries)} entries, not {mark[1:]}")
        return entries[:int(mark[1:])]
    for number, entry in enumerate(entries):
        if entry.flags & MARK and entry.text == os.fsencode(mark):
            return entries[:number]
    raise BadLog(f"there is no mark '{mark}'")


def apply(entry, log, image):
    """Makes the change in `image`, an open file."""
    if entry.flags & DISCARD:
        image.seek(0, os.SEEK_END)
        _zero(image, entry.start, min(entry.start + entry.length, image.tell()))
        return
    for done in range(0, entry.length, PIECE):
        log.seek(entry.data + done)
        image.seek(entry.start + done)
        image.write(log.read(min(PIECE, entry.length - done)))


def _zero(image, start, end):
    """Writes zeroes where there are none yet, so that holes stay holes."""
    for at in range(start, end, PIECE):
        zeroes = bytes(min(PIECE, end - at))
        image.seek(at)
        if image.read(len(zeroes)) != zeroes:
            image.seek(at)
            image.write(zeroes)


def main(arguments):
    if len(arguments) not in (2, 3):
        print("usage: replay LOG IMAGE [MARK]", file=sys.stderr)
        return 2
    try:
        with open(arguments[0], "rb") as log:
            entries = read_log(log)
            chosen = upto(entries, arguments[2]) if len(arguments) == 3 else entries
            with open(os.open(arguments[1], os.O_RDWR | os.O_CREAT, 0o666), "r+b") as image:
                for entry in chosen:
                    apply(entry, log, image)
                image.flush()
                os.fsync(image.fileno())
    except BadLog as problem:
        print(f"{arguments[0]}: {problem}", file=sys.stderr)
        return 1
    except OSError as problem:
        print(f"{problem.filename or arguments[1]}: {problem.strerror}", file=sys.stderr)
        return 1
    print(f"replayed {len(chosen)} of {len(entries)} entries")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
