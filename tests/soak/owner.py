"""owner.py - a client that owns a slot of an export, does to it all that NBD can, and checks each byte it reads."""
import collections
import errno
import time
from typing import Callable, NamedTuple

import nbd

from client import Client, Gone
from content import Content, Mismatch
from disks import DEAF_SECTOR, FULL_SECTOR, LOST_SECTOR, SECTOR, KiB, MiB

PATIENCE = 60  # seconds for one answer
LONGEST = 512 * KiB
RECENT = 300  # changes that a failure tells of
KINDS = "read", "write", "zero", "trim", "flush", "cache", "status", "bad"
WEIGHTS = 30, 35, 8, 5, 4, 2, 6, 1
GONE = errno.ESHUTDOWN, errno.ENOTCONN  # the server is about to leave; libnbd, when it has left


class Request(NamedTuple):
    what: str
    offset: int  # from the start of the slot
    length: int
    errors: tuple  # what it may be answered with
    then: Callable  # is told which of them it was


def starts_within(offset, length, sector):
    """What blkdebug goes by."""
    return offset <= sector * SECTOR < offset + length


class Owner(Client):
    def __init__(self, slot, seed):
        super().__init__(f"{slot.export}[{slot.offset}:{slot.offset + slot.size}]", seed)
        self.slot = slot
        self.content = Content(slot.size, slot.offset)
        self.nbd = None
        self._recent = collections.deque(maxlen=RECENT)
        self._under_way = {}  # number -> Request
        self._answers = []  # (number, errno): a callback may not use the connection, so that it only takes notes
        self._number = 0

    def live(self, reborn):
        if reborn and self.slot.export == "memory":
            self.content = Content(self.slot.size, self.slot.offset)
        try:
            self._connect()
            self._verify()
            depth = self.chance.choice([1, 4, 16])
            while not self.is_over():
                self._work(depth)
            while self._under_way:
                self._poll()
            self.nbd.shutdown()
        except nbd.Error as error:
            self._take_answers()
            raise Gone(str(error)) from None
        except Mismatch as mismatch:
            raise Mismatch(self._story(str(mismatch))) from None
        finally:
            self._under_way.clear()
            self.nbd = None  # closes the connection
            self._answers.clear()

    def _connect(self):
        client = self.nbd = nbd.NBD()
        client.set_strict_mode(0)
        client.set_request_block_size(False)  # the server has to pad
        client.set_request_structured_replies(self.chance.random() < 0.7)
        client.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
        client.connect_uri(self.uris[self.slot.export, self.chance.choice(["unix", "tcp"])])

    def _verify(self):
        """All of the slot, as the last server has left it."""
        pieces = [self.nbd.pread(min(MiB, self.slot.size - at), self.slot.offset + at)
                  for at in range(0, self.slot.size, MiB)]
        self.content.settle(b"".join(pieces))
        self.counts["verified"] += 1

    def _work(self, depth):
        for _ in range(depth):
            if len(self._under_way) < depth:
                self._ask(self.chance.choices(KINDS, WEIGHTS)[0])
        self._poll()
        if self.slot.export == "logged":
            time.sleep(0.02)  # its log would fill the disk

    def _poll(self):
        if self._under_way and self.nbd.poll(PATIENCE * 1000) == 0:
            waiting = [f"{it.what} of {it.length} at {it.offset}" for it in self._under_way.values()]
            raise AssertionError(self._story(f"no answer for {PATIENCE} s to {', '.join(waiting)}"))
        self._take_answers()

    def _take_answers(self):
        answers, self._answers = self._answers, []
        gone = None
        for number, error in answers:
            request = self._under_way.pop(number)
            self.counts[request.what] += 1
            if error in request.errors:
                request.then(error)
            elif error in GONE:
                gone = Gone(f"{request.what}: {errno.errorcode[error]}")
            else:
                raise AssertionError(self._story(f"{request.what} of {request.length} bytes at {request.offset} has "
                                                 f"failed: {errno.errorcode.get(error, error)}"))
        if gone:
            raise gone

    def _story(self, what):
        recent = "".join(f"  {item}\n" for item in self._recent)
        return f"{what}\nof {self.name}; offsets count from {self.slot.offset}. Its last changes:\n{recent}"

    # Requests. Those under way at once touch different bytes.

    def _ask(self, kind):
        chance = self.chance
        length = chance.choice([SECTOR, 4 * KiB, 4 * KiB, 64 * KiB, chance.randrange(1, 70000),
                                chance.randrange(1, LONGEST)])
        offset = chance.randrange(self.slot.size - length)
        offset -= offset % chance.choice([1, SECTOR, 4 * KiB])
        if kind == "flush":
            self.nbd.aio_flush(self._expect(kind, 0, 0))
        elif kind == "bad":
            self._ask_for_what_fails()
        elif not self._is_free(offset, length):
            return
        elif kind == "read":
            self._read(offset, length, self.content.check)
        elif kind == "cache":
            self.nbd.aio_cache(length, self.slot.offset + offset, self._expect(kind, offset, length))
        elif kind == "status":
            self._status(offset, length)
        else:
            self._change(kind, offset, length)

    def _is_free(self, offset, length):
        return self.content.is_free(offset, length) and all(
            offset + length <= it.offset or it.offset + it.length <= offset for it in self._under_way.values())

    def _expect(self, what, offset, length, then=lambda error: None, errors=(0,)):
        """Notes a request; its completion handler."""
        self._number += 1
        number = self._number
        self._under_way[number] = Request(what, offset, length, errors, then)

        def done(error):
            self._answers.append((number, error.value))
            return 1
        return done

    def _read(self, offset, length, check):
        buffer = nbd.Buffer(length)
        self.nbd.aio_pread(buffer, self.slot.offset + offset, self._expect(
            "read", offset, length, lambda error: check(offset, buffer.to_bytearray())))

    def _change(self, kind, offset, length):
        flags, errors = self.chance.choice([0, 0, 0, nbd.CMD_FLAG_FUA]), self._errors(kind, offset, length)
        if kind == "zero":
            flags |= self.chance.choice([0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FAST_ZERO])
            if flags & nbd.CMD_FLAG_FAST_ZERO:
                errors += (errno.ENOTSUP,)
        data = self.chance.randbytes(length) if kind == "write" else bytes(length)
        key = self.content.begin(offset, data)
        self._recent.append(f"{key}: {kind} {length} at {offset}, flags {flags}")

        def then(error):
            if error == errno.ENOTSUP:  # a fast zero is done, or nothing is changed
                self.content.refused(key)
            elif error or kind == "trim":  # nothing, or a part, or all
                self._read(offset, length, lambda _, found: self.content.settle_one(key, found))
            else:
                self.content.done(key)

        there, done = self.slot.offset + offset, self._expect(kind, offset, length, then, errors)
        if kind == "write":
            self.nbd.aio_pwrite(nbd.Buffer.from_bytearray(data), there, done, flags)
        elif kind == "trim":
            self.nbd.aio_trim(length, there, done, flags)
        else:
            self.nbd.aio_zero(length, there, done, flags)

    def _errors(self, kind, offset, length):
        """What a change is answered with: only `faulty` has more to say than 0."""
        if self.slot.export == "faulty" and kind == "write" and starts_within(offset, length, FULL_SECTOR):
            return (errno.ENOSPC,)
        if self.slot.export == "faulty" and kind == "zero" and starts_within(offset, length, DEAF_SECTOR):
            return (errno.EIO,)
        return (0,)

    def _status(self, offset, length):
        if not self.nbd.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION):
            return
        extents = []

        def check(_):
            at = offset
            for size, flags in zip(extents[::2], extents[1::2]):
                end = min(at + size, offset + length)
                if flags & nbd.STATE_ZERO and not self.content.zeroes(at, end - at):
                    raise Mismatch(f"{end - at} bytes at {at} hold data, not zeroes as by block status {extents}")
                at += size

        def take(_, __, entries, ___):
            extents.extend(entries)
            return 0
        done = self._expect("status", offset, length, check)
        self.nbd.aio_block_status(length, self.slot.offset + offset, take, done)

    def _ask_for_what_fails(self):
        """Past the end; and where `faulty` has lost a sector."""
        size = self.nbd.get_size()
        self.nbd.aio_pread(nbd.Buffer(SECTOR), size - 1, self._expect("bad", 0, 0, errors=(errno.EINVAL,)))
        self.nbd.aio_pwrite(nbd.Buffer.from_bytearray(bytes(SECTOR)), size - 1,
                            self._expect("bad", 0, 0, errors=(errno.ENOSPC,)))
        if self.slot.export == "faulty":
            self.nbd.aio_pread(nbd.Buffer(SECTOR), LOST_SECTOR * SECTOR,
                               self._expect("bad", 0, 0, errors=(errno.EIO,)))
